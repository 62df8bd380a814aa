"""Policy: whether a call may be made at all, and in which form. Pure: everything that it decides on is an argument.

What must be exact under concurrency (balance, caps, rates) is not decided here but in the reserve script.
"""

import msgspec

from gateway.core.access.callers import Caller
from gateway.core.calls.calls import Call
from gateway.core.errors import AccountInReview, AccountSuspended
from gateway.core.guard.brownout import Brownout, Brownouts, brownouts_in_force
from gateway.core.guard.flags import Flag, Flags
from gateway.core.guard.flags import in_force as flags_in_force


class Controls(msgspec.Struct, frozen=True):
    """What operators and breakers have decided, at one moment: read by every request, without waiting.

    What is None does not concern anybody, so that a request of a quiet day looks at each part once.
    """

    flags: Flags | None = None
    brownouts: Brownouts | None = None

    def is_shadow(self, account_id: str) -> bool:
        """Whether the account's calls are measured and priced, and not charged."""
        return self.flags is not None and self.flags.is_shadow(account_id)


class Decisions(msgspec.Struct, frozen=True):
    """All that operators have decided, also what has expired: what the snapshots are made of as time goes by."""

    flags: tuple[Flag, ...] = ()
    brownouts: tuple[Brownout, ...] = ()

    def at(self, now_ms: int) -> Controls:
        return Controls(flags_in_force(self.flags, now_ms), brownouts_in_force(self.brownouts, now_ms))

    def next_expiry_ms(self, now_ms: int) -> int | None:
        """When the snapshot of `now_ms` is no longer right, if nobody decides anything."""
        ends = [each.expires_at_ms for each in self.flags] + [each.expires_at_ms for each in self.brownouts]
        return min((end for end in ends if end is not None and end > now_ms), default=None)


def admit_request(caller: Caller, path: str, controls: Controls, now_ms: int) -> None:
    """Raises the `GatewayError` that refuses this caller's request, metered or not, whatever is in it."""
    if caller.status != "active":
        raise inactive(caller)
    if controls.flags is not None:
        controls.flags.check_request(caller.account_id, path, now_ms)


def admit_call(caller: Caller, call: Call) -> None:
    """Raises the `GatewayError` that refuses the call."""
    if caller.restrictions is not None:
        caller.restrictions.check_model(call.model)


def inactive(caller: Caller) -> AccountInReview | AccountSuspended:
    """What tells a caller that it is suspended or in review, with the reference to ask about."""
    if caller.status == "suspended":
        return AccountSuspended()
    if not caller.review:
        return AccountInReview()
    return AccountInReview(
        f"This account, member or key is under review; ask its operator about {caller.review}.", reference=caller.review
    )
