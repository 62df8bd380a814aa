"""Policy: whether a call may be made at all, and in which form. Pure: everything that it decides on is an argument.

What must be exact under concurrency (balance, caps, rates) is not decided here but in the reserve script.
"""

from typing import NamedTuple

import msgspec

from gateway.core.callers import Caller
from gateway.core.calls import Call
from gateway.core.errors import AccountInReview, AccountSuspended


class Controls(msgspec.Struct, frozen=True):
    """What operators and breakers have decided, at one moment: read by every request, without waiting."""


class Admitted(NamedTuple):
    """A call that may be made, perhaps trimmed."""

    call: Call
    lines: bytes = b""  # header lines that tell the caller what was changed, and what it should know


def admit_caller(caller: Caller, controls: Controls) -> None:
    """Raises the `GatewayError` that refuses every request of this caller, metered or not."""
    if caller.status != "active":
        raise inactive(caller)


def admit(caller: Caller, call: Call, controls: Controls, now_ms: int) -> Admitted:
    """The call as it may be made now; raises the `GatewayError` that refuses it."""
    if caller.restrictions is not None:
        caller.restrictions.check_model(call.model)
    return Admitted(call)


def inactive(caller: Caller) -> AccountInReview | AccountSuspended:
    """What tells a caller that it is suspended or in review, with the reference to ask about."""
    if caller.status == "suspended":
        return AccountSuspended()
    if not caller.review:
        return AccountInReview()
    return AccountInReview(
        f"This account, member or key is under review; ask its operator about {caller.review}.", reference=caller.review
    )
