"""Holds and how they end: the records that travel from the gateway through Redis' outbox into Postgres.

    open → captured | voided | lapsed → (late settlement) corrected

Everything here is data; the state changes happen in `lua/`, each in one atomic script.
"""

from enum import StrEnum

import msgspec

from gateway.core.calls.usage import Usage
from gateway.core.money import MicroCredits


class HoldState(StrEnum):
    """What Redis remembers of a request; all but `open` are final, save that a late settlement corrects a lapse."""

    OPEN = "open"
    REFUSED = "refused"  # there never was a hold
    CAPTURED = "captured"
    VOIDED = "voided"
    LAPSED = "lapsed"


class Outcome(StrEnum):
    """How a call ended, as every ledger line says it."""

    EXACT = "exact"  # usage was reported and the caller got the answer
    DRAINED = "drained"  # the caller left; upstream was read to its end and usage was reported
    ESTIMATED = "estimated"  # no usable usage: counted from what was delivered, or the held estimate; flagged
    VOID = "void"  # nothing was consumed
    LAPSED = "lapsed"  # the gateway died: last renewed progress is charged


class Flag(StrEnum):
    """Why a settlement wants a second look. Stored with the line; reconciliation lists them."""

    OVERRUN = "overrun"  # the cost passed the hold
    USAGE_MISSING = "usage_missing"
    USAGE_ABSURD = "usage_absurd"
    FAILED = "failed"  # upstream reported an error inside its answer
    CUT = "cut"  # upstream died, or the caller's leaving cut it
    SLICED = "sliced"  # the gateway ended it, since no more could be held for it
    UNPRICED = "unpriced"  # the served model or tier has no rate: the held estimate is kept
    LAPSED = "lapsed"
    LATE = "late"  # settled after its lease had lapsed


class Phase(StrEnum):
    """Which of a request's at most two ledger movements this is."""

    END = "end"  # capture, void or lapse: exactly one for each hold
    CORRECTION = "correction"  # a late settlement after a lapse: at most one


class Counted(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """Whose counters an open hold stands in, and in which windows of theirs: what its end must set right."""

    level: str  # account, member, key
    day: str = ""  # the name of a window; "" if it is not counted by the day
    month: str = ""


class Terms(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a hold was opened under; stored in the hold, so that a lapse can be posted without its gateway."""

    account_id: str
    key_id: str
    endpoint: str
    model: str
    rate_version: str
    opened_at_ms: int  # Unix time of the gateway that opened it: `event_at` of a lapse, never a lease
    member_id: str = ""
    is_shadow: bool = False  # measured and priced, and never charged: however it ends, no balance moves
    counted: tuple[Counted, ...] = ()

    def id_of(self, level: str) -> str:
        """Who the account, the member or the key of this call is."""
        return self.account_id if level == "account" else self.member_id if level == "member" else self.key_id


class Hold(msgspec.Struct, frozen=True, gc=False):
    """A hold to reserve. `fingerprint` is a hash of the request: one id never stands for two requests."""

    request_id: str  # UUIDv7, made by the gateway
    amount: MicroCredits
    fingerprint: str
    terms: Terms
    attempt: int = 1  # 2 when the exact bound is tried after the cheap one was refused
    tokens: int = 0  # that the call may use: for the rate
    cap_keys: tuple[bytes, ...] = ()  # of Redis, one for each level with caps
    cap_lines: tuple[bytes, ...] = ()  # what the reserve script is told of each


class Settlement(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What ends a hold: the event of the outbox, the row of the journal, the source of the ledger lines."""

    request_id: str
    terms: Terms
    outcome: Outcome
    held: MicroCredits
    cost: MicroCredits  # in full, also above the hold; 0 for a void; of a shadow call, what it would have cost
    event_at_ms: int
    rounding: MicroCredits = 0  # the part of `cost` that rounding up to whole credits added
    usage: Usage = Usage()
    rate_key: str = ""  # which row and column of the card priced it: "gpt-4o-mini/flex"
    flags: tuple[Flag, ...] = ()
    status: int = 0  # upstream's HTTP status; 0 if it never answered
    upstream_request_id: str = ""

    @property
    def charged(self) -> MicroCredits:
        """By how much the balance moves when this ends an open hold."""
        return 0 if self.terms.is_shadow else self.cost


class Balance(msgspec.Struct, frozen=True, gc=False):
    """An account's money at one moment, in µcr: available = balance − held."""

    balance: MicroCredits
    held: MicroCredits

    @property
    def available(self) -> MicroCredits:
        return self.balance - self.held
