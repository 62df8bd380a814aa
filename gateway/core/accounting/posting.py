"""Posting: what the events of Redis' outbox put into the ledger. Decides everything, awaits nothing.

Whoever calls holds the locks of the shards, tells what Postgres already has, and writes down what `plan` returns, in
one SQL transaction. Nothing is ever dropped: an event is posted, or known already, or a dead letter.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from gateway.core.accounting.ledger import (
    Buckets,
    Entries,
    TransferKind,
    entries_for_capture,
    entries_for_correction,
    taken_by,
)
from gateway.core.holds import Outcome, Phase, Settlement
from gateway.core.money import MicroCredits


class Position(NamedTuple):
    """The id of an event in its shard's outbox; `seq` grows by one from event to event, also across epochs."""

    epoch: int
    seq: int


class Event(msgspec.Struct, frozen=True):
    """One event of an outbox, read and checked."""

    shard: int
    position: Position
    phase: Phase
    kind: str  # capture, void, lapse
    request_id: str
    account_id: str
    charged: MicroCredits  # by which Redis debited the balance
    settlement: Settlement
    fingerprint: bytes
    payload: str  # the raw fields as JSON, for a dead letter


class DeadLetter(msgspec.Struct, frozen=True):
    """What cannot be posted, with the reason."""

    shard: int
    position: Position
    reason: str
    payload: str
    fingerprint: bytes


class Claim(msgspec.Struct, frozen=True):
    """The event that was posted for one phase of a request."""

    kind: str
    position: Position
    fingerprint: bytes


Phased = tuple[str, Phase]


class Known(msgspec.Struct):
    """What Postgres says about a batch before it is posted."""

    epochs: Mapping[int, int]
    buckets: dict[str, Buckets]  # by account; an account that is not here does not exist
    claims: dict[Phased, Claim]
    taken: dict[str, Buckets]  # by request: what its lapse took; only where it may be corrected
    positions: dict[int, Position]  # where each shard's events follow on; a shard that is not here is not checked


class Line(msgspec.Struct, frozen=True):
    """One posted event: its usage line and, if money moved, its transfer."""

    event: Event
    phase: Phase  # a late settlement that came as an end is posted as a correction
    charged: MicroCredits
    transfer_id: str
    transfer_kind: TransferKind
    entries: Entries


class Plan(msgspec.Struct):
    lines: list[Line] = []
    dead_letters: list[DeadLetter] = []
    repaid: dict[str, MicroCredits] = {}  # by account: debited in Redis once more than here; given back there
    repeated: int = 0
    rolled_back: set[int] = set()  # shards of which Redis has forgotten something that Postgres has


def plan(events: Iterable[Event | DeadLetter], known: Known, new_id: Callable[[], str]) -> Plan:
    """Decide what to write for `events`, in the order of their streams. `known` is brought forward on the way."""
    made = Plan()
    for event in events:
        _check_order(event, known, made)
        if isinstance(event, DeadLetter):
            made.dead_letters.append(event)
        elif event.account_id not in known.buckets:
            made.dead_letters.append(dead(event, "account_unknown"))
        else:
            _place(event, known, made, new_id)
        if event.shard in known.positions:
            known.positions[event.shard] = max(known.positions[event.shard], event.position)
    return made


def dead(event: Event, reason: str) -> DeadLetter:
    return DeadLetter(event.shard, event.position, reason, event.payload, event.fingerprint)


def _check_order(event: Event | DeadLetter, known: Known, made: Plan) -> None:
    """Events are numbered without gaps, so a missing number is a lost event: money that nobody would miss otherwise.

    A number that was posted already, with an event that was not, is one that Redis gave away twice: it was rolled back.
    """
    before = known.positions.get(event.shard)
    if before is None:
        return
    if event.position.seq > before.seq + 1:
        payload = msgspec.json.encode({"after": _id(before), "next": _id(event.position)}).decode()
        made.dead_letters.append(DeadLetter(event.shard, event.position, "gap", payload, b""))
    if event.position <= before and isinstance(event, Event) and (event.request_id, event.phase) not in known.claims:
        made.rolled_back.add(event.shard)


def _id(position: Position) -> str:
    return f"{position.epoch}-{position.seq}"


def _place(event: Event, known: Known, made: Plan, new_id: Callable[[], str]) -> None:
    claim = known.claims.get((event.request_id, event.phase))
    if claim is None:
        made.lines.append(_post(event, event.phase, event.charged, known, new_id))
    elif claim.position == event.position and claim.fingerprint == event.fingerprint:
        made.repeated += 1
    elif claim.kind == "lapse" and event.kind != "lapse" and event.phase is Phase.END:
        _post_late(event, known, made, new_id)
    elif event.kind == "lapse" or claim.fingerprint == event.fingerprint:
        # A rebuild let Redis end this hold a second time; here it ended once, and that stands.
        made.repeated += 1
        _repay(event, event.charged, known, made)
    else:
        made.dead_letters.append(dead(event, "conflict"))


def _post_late(event: Event, known: Known, made: Plan, new_id: Callable[[], str]) -> None:
    """A settlement for a lapse that Redis no longer remembered, so it came as an end and debited in full."""
    if (event.request_id, Phase.CORRECTION) in known.claims:
        made.repeated += 1
        _repay(event, event.charged, known, made)
        return
    already_charged = -known.taken.get(event.request_id, Buckets()).total
    made.lines.append(_post(event, Phase.CORRECTION, event.charged - already_charged, known, new_id))
    _repay(event, already_charged, known, made)


def _repay(event: Event, amount: MicroCredits, known: Known, made: Plan) -> None:
    """Give back in Redis what it debited beyond the ledger. An older epoch's balance is gone already: nothing to do.

    An event that is read again, as not all are acknowledged, was given back when the position passed it.
    """
    if event.shard in known.positions and event.position <= known.positions[event.shard]:
        return
    if amount and event.position.epoch == known.epochs[event.shard]:
        made.repaid[event.account_id] = made.repaid.get(event.account_id, 0) + amount


def _post(event: Event, phase: Phase, charged: MicroCredits, known: Known, new_id: Callable[[], str]) -> Line:
    settlement, buckets = event.settlement, known.buckets[event.account_id]
    if settlement.terms.is_shadow:
        known.claims[event.request_id, phase] = Claim(event.kind, event.position, event.fingerprint)
        return Line(event, phase, 0, "", TransferKind.CAPTURE, ())
    if phase is Phase.END:
        kind = TransferKind.LAPSE if settlement.outcome is Outcome.LAPSED else TransferKind.CAPTURE
        entries = entries_for_capture(charged, settlement.rounding, buckets)
        transfer_id = event.request_id
        known.taken[event.request_id] = taken_by(entries)
    else:
        kind = TransferKind.CORRECTION
        taken = known.taken.get(event.request_id, Buckets())
        entries = entries_for_correction(charged, settlement.rounding, buckets, taken)
        transfer_id = new_id() if entries else ""
    known.buckets[event.account_id] = buckets.after(entries)
    known.claims[event.request_id, phase] = Claim(event.kind, event.position, event.fingerprint)
    return Line(event, phase, charged, transfer_id, kind, entries)
