"""How a call ends and what is charged: the one table.

| upstream                              | usage          | caller | outcome   | charged                |
|---------------------------------------|----------------|--------|-----------|------------------------|
| never answered, or not with 2xx       | –              | any    | void      | nothing                |
| answered in full                      | reported       | stayed | exact     | usage                  |
| answered in full                      | reported       | left   | drained   | usage                  |
| answered in full                      | missing        | any    | estimated | the hold, flagged      |
| any                                   | absurd         | any    | estimated | the hold, flagged      |
| died, or was cut off, in the answer   | –              | any    | estimated | what was delivered     |
| died before the caller got a byte     | –              | stayed | void      | nothing, flagged       |
| reported an error inside the answer   | none           | any    | estimated | what was delivered     |
| …before delivering anything           | none           | any    | void      | nothing                |
"""

from enum import StrEnum

import msgspec

from gateway.core.holds import Flag, Outcome
from gateway.core.meter import Reading
from gateway.core.rates import ModelRates
from gateway.core.usage import AbsurdUsage, Usage, disjoint

# Upstream is trusted to bill us, not to be free of mistakes: counts beyond this multiple of what the model can do are
# quarantined instead of debited.
ABSURD_FACTOR = 2


class Charge(StrEnum):
    USAGE = "usage"
    DELIVERED = "delivered"  # the input, and the output that reached the caller, counted by the tokenizer
    HELD = "held"
    NOTHING = "nothing"


class Ended(msgspec.Struct):
    """The facts of one relayed call."""

    status: int = 0  # upstream's; 0 if it never answered
    cut: bool = False  # the answer did not come to its own end
    sent_any: bool = False  # some of the answer's body went towards the caller
    caller_gone: bool = False
    reading: Reading = msgspec.field(default_factory=Reading)
    upstream_request_id: str = ""


class Ending(msgspec.Struct, frozen=True):
    outcome: Outcome
    charge: Charge
    flags: tuple[Flag, ...] = ()
    usage: Usage = Usage()


def ending(ended: Ended, row: ModelRates, choices: int) -> Ending:
    """Decide how a call ended; `row` and `choices` bound what the model can plausibly have used."""
    reading = ended.reading
    if not 200 <= ended.status < 300:
        # A caller that left before upstream answered has still sent its input there.
        if ended.status == 0 and ended.caller_gone and ended.cut:
            return Ending(Outcome.ESTIMATED, Charge.DELIVERED, (Flag.CUT,))
        return Ending(Outcome.VOID, Charge.NOTHING)
    if reading.usage_unreadable:
        return Ending(Outcome.ESTIMATED, Charge.HELD, (Flag.USAGE_ABSURD,))
    if reading.usage is not None:
        try:
            usage = disjoint(reading.usage)
            require_plausible(usage, row, choices)
        except AbsurdUsage:
            return Ending(Outcome.ESTIMATED, Charge.HELD, (Flag.USAGE_ABSURD,))
        return Ending(Outcome.DRAINED if ended.caller_gone else Outcome.EXACT, Charge.USAGE, usage=usage)
    if reading.failed:
        if reading.delivered.anything:
            return Ending(Outcome.ESTIMATED, Charge.DELIVERED, (Flag.USAGE_MISSING,))
        return Ending(Outcome.VOID, Charge.NOTHING)
    if ended.cut and not reading.complete:
        if not ended.sent_any and not ended.caller_gone:
            return Ending(Outcome.VOID, Charge.NOTHING, (Flag.CUT,))
        return Ending(Outcome.ESTIMATED, Charge.DELIVERED, (Flag.CUT,))
    return Ending(Outcome.ESTIMATED, Charge.HELD, (Flag.USAGE_MISSING,))


def require_plausible(usage: Usage, row: ModelRates, choices: int) -> None:
    """Raise `AbsurdUsage` for counts that the model cannot have used."""
    if usage.input_total > ABSURD_FACTOR * row.context_tokens:
        raise AbsurdUsage(f"{usage.input_total} input tokens for a window of {row.context_tokens}")
    output_tokens_max = row.output_tokens_max * max(choices, 1)
    if usage.output_total > ABSURD_FACTOR * output_tokens_max:
        raise AbsurdUsage(f"{usage.output_total} output tokens for a limit of {output_tokens_max}")
