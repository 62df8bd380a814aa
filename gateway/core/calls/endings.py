"""How a call ends and what is charged: the one table.

| upstream                              | usage          | caller | outcome   | charged                |
|---------------------------------------|----------------|--------|-----------|------------------------|
| never answered, or not with 2xx       | –              | any    | void      | nothing                |
| answered in full                      | reported       | stayed | exact     | usage                  |
| answered in full                      | reported       | left   | drained   | usage                  |
| died, cut off, or failed              | so far         | any    | estimated | delivered, or usage if more |
| answered in full                      | missing        | any    | estimated | the hold, flagged      |
| any                                   | absurd         | any    | estimated | the hold, flagged      |
| died, or was cut off, in the answer   | –              | any    | estimated | what was delivered     |
| was ended by us: no more could be held for it | so far | any | estimated | delivered, or usage if more |
| died before the caller got a byte     | –              | stayed | void      | nothing, flagged       |
| reported an error inside the answer   | none           | any    | estimated | what was delivered     |
| …before delivering anything           | none           | any    | void      | nothing, flagged       |
"""

from enum import StrEnum

import msgspec

from gateway.core.calls.estimate import Estimate, plausible
from gateway.core.calls.meter import Reading
from gateway.core.calls.usage import AbsurdUsage, Usage, disjoint
from gateway.core.holds import Flag, Outcome
from gateway.core.pricing.rates import ModelRates


class Charge(StrEnum):
    USAGE = "usage"
    DELIVERED = "delivered"  # the input, and the output that reached the caller, counted by the tokenizer
    HELD = "held"
    NOTHING = "nothing"


class Fault(StrEnum):
    """How upstream failed to answer."""

    UNREACHABLE = "unreachable"  # no connection
    TIMEOUT = "timeout"
    BROKEN = "broken"  # the connection, before the answer was there


UNREAD = Reading()  # of an answer that nobody read; never changed


class Ended(msgspec.Struct):
    """The facts of one relayed call."""

    status: int = 0  # upstream's; 0 if it never answered
    cut: bool = False  # the answer did not come to its own end
    is_out_of_slices: bool = False  # it was the gateway that ended it: no more could be held for it
    sent_any: bool = False  # some of the answer's body went towards the caller
    caller_gone: bool = False
    reading: Reading = UNREAD
    upstream_request_id: str = ""
    fault: Fault | None = None
    first_byte_ms: int | None = None  # of a stream: from the request to the head of the answer


class Ending(msgspec.Struct, frozen=True):
    outcome: Outcome
    charge: Charge
    flags: tuple[Flag, ...] = ()
    usage: Usage = Usage()  # of charge DELIVERED: the least that it can have been


def ending(ended: Ended, estimate: Estimate, row: ModelRates) -> Ending:
    """Decide how a call ended; `estimate` and `row` bound what the model can plausibly have used."""
    reading = ended.reading
    if not 200 <= ended.status < 300:
        # Whether upstream began on a call that it never answered cannot be known: the caller is not charged for it.
        flags = (Flag.CUT,) if ended.status == 0 and ended.caller_gone and ended.cut else ()
        return Ending(Outcome.VOID, Charge.NOTHING, flags)
    if reading.usage_unreadable:
        return Ending(Outcome.ESTIMATED, Charge.HELD, (Flag.USAGE_ABSURD,))
    if reading.usage is not None:
        try:
            usage = disjoint(reading.usage)
            plausible(usage, estimate, row)
        except AbsurdUsage:
            return Ending(Outcome.ESTIMATED, Charge.HELD, (Flag.USAGE_ABSURD,))
        if not reading.usage_final and (ended.cut or reading.failed):
            # Said on the way: what came after it, up to the cut, was used as well.
            return Ending(Outcome.ESTIMATED, Charge.DELIVERED, (_cut(ended) if ended.cut else Flag.FAILED,), usage)
        return Ending(Outcome.DRAINED if ended.caller_gone else Outcome.EXACT, Charge.USAGE, usage=usage)
    if reading.failed:
        if reading.delivered.anything:
            return Ending(Outcome.ESTIMATED, Charge.DELIVERED, (Flag.FAILED,))
        return Ending(Outcome.VOID, Charge.NOTHING, (Flag.FAILED,))
    if ended.cut and not reading.complete:
        if not ended.sent_any and not ended.caller_gone:
            return Ending(Outcome.VOID, Charge.NOTHING, (Flag.CUT,))
        return Ending(Outcome.ESTIMATED, Charge.DELIVERED, (_cut(ended),))
    return Ending(Outcome.ESTIMATED, Charge.HELD, (Flag.USAGE_MISSING,))


def _cut(ended: Ended) -> Flag:
    return Flag.SLICED if ended.is_out_of_slices else Flag.CUT
