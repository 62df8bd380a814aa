"""The outbox: reads the shards' streams and turns their raw fields into events. What cannot be read is a dead letter.

Reading takes nothing away: an event leaves its stream only when Postgres has it and the shard is acknowledged.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.core.accounting.posting import DeadLetter, Event, Position
from gateway.core.calls.usage import Usage
from gateway.core.holds import Flag, Outcome, Phase, Settlement, Terms
from gateway.core.money import AMOUNT_UCR_MAX
from gateway.core.shards import SHARD_KEYS, shard_of

EVENT_AT_MS_MAX = 253_402_300_799_999  # the end of the year 9999
STATUS_MAX = 999

Fields = Mapping[bytes, bytes]

_decode_settlement = msgspec.json.Decoder(Settlement).decode
_decode_terms = msgspec.json.Decoder(Terms).decode
_decode_usage = msgspec.json.Decoder(Usage).decode


class OutboxUnavailable(Exception):
    """Redis cannot be read now."""


class Unreadable(ValueError):
    """The event does not say what it must."""


class Outbox:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._shard_of = {keys.outbox: shard for shard, keys in enumerate(SHARD_KEYS)}

    async def read(
        self, after: Mapping[int, Position], *, count: int, block_ms: int | None = None
    ) -> list[Event | DeadLetter]:
        """The next events of the shards in `after`, at most `count` of each; waits up to `block_ms` for the first."""
        if not after:
            return []
        streams: dict[Any, Any] = {SHARD_KEYS[s].outbox: f"{p.epoch}-{p.seq}" for s, p in after.items()}
        try:
            reply: Any = await self._redis.xread(streams, count=count, block=block_ms)
        except (RedisError, OSError) as error:
            raise OutboxUnavailable(f"{type(error).__name__}: {error}") from error
        return [
            decode(self._shard_of[key], entry_id, fields)
            for key, entries in reply or ()
            for entry_id, fields in entries
        ]

    async def length(self, shards: Sequence[int]) -> int:
        """How many events these shards hold that are not acknowledged."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for shard in shards:
                    pipeline.xlen(SHARD_KEYS[shard].outbox)
                return sum(await pipeline.execute())
        except (RedisError, OSError) as error:
            raise OutboxUnavailable(f"{type(error).__name__}: {error}") from error


def decode(shard: int, entry_id: bytes, fields: Fields) -> Event | DeadLetter:
    """Read one entry of `shard`'s stream."""
    epoch, _, seq = entry_id.partition(b"-")
    position = Position(int(epoch), int(seq))
    payload = _payload(fields)
    fingerprint = _fingerprint(fields)
    try:
        settlement = _settlement(fields)
        event = Event(
            shard=shard,
            position=position,
            phase=Phase(_text(fields, b"phase")),
            kind=_text(fields, b"kind"),
            request_id=_text(fields, b"request_id"),
            account_id=_text(fields, b"account"),
            charged=int(_text(fields, b"cost")),
            settlement=settlement,
            fingerprint=fingerprint,
            payload=payload,
        )
        _require_consistent(event)
    except (Unreadable, msgspec.DecodeError, ValueError) as error:
        return DeadLetter(shard, position, f"unreadable: {str(error)[:200]}", payload, fingerprint)
    return event


def _text(fields: Fields, name: bytes) -> str:
    value = fields.get(name)
    if value is None:
        raise Unreadable(f"{name.decode()} is missing")
    return value.decode()


def _settlement(fields: Fields) -> Settlement:
    data = fields.get(b"data")
    if fields.get(b"kind") != b"lapse":
        return _decode_settlement(data or b"")
    terms = _decode_terms(fields.get(b"terms") or b"")
    return Settlement(
        request_id=_text(fields, b"request_id"),
        terms=terms,
        outcome=Outcome.LAPSED,
        held=int(_text(fields, b"held")),
        cost=int(_text(fields, b"cost")),
        # The gateway is dead and Redis' own clock is no business time: the last moment known is the hold's opening.
        event_at_ms=terms.opened_at_ms,
        usage=_decode_usage(fields.get(b"usage") or b"{}"),
        flags=(Flag.LAPSED,),
    )


_KINDS = {"capture", "void", "lapse"}


def _require_consistent(event: Event) -> None:
    settlement = event.settlement
    _require(event.kind in _KINDS, "kind is unknown")
    _require(str(UUID(event.request_id)) == event.request_id == settlement.request_id, "request_id is not one UUID")
    _require(str(UUID(event.account_id)) == event.account_id == settlement.terms.account_id, "account is not one UUID")
    _require(shard_of(event.account_id) == event.shard, "account belongs to another shard")
    for amount in (event.charged, settlement.cost, settlement.held):
        _require(abs(amount) <= AMOUNT_UCR_MAX, "an amount is out of range")
    _require(settlement.held >= 0 and 0 <= settlement.rounding <= settlement.cost, "held or rounding is out of range")
    if event.phase is Phase.END:
        _require(event.charged == settlement.charged, "cost is not the settlement's")
    else:
        _require(event.kind != "lapse", "a lapse corrects nothing")
    _require(event.charged == 0 or not settlement.terms.is_shadow, "a shadow call charges nothing")
    _require((event.kind == "void") == (settlement.outcome is Outcome.VOID), "kind is not the settlement's outcome")
    _require(event.kind != "void" or settlement.cost == 0, "a void costs nothing")
    _require(0 <= settlement.event_at_ms <= EVENT_AT_MS_MAX, "event_at_ms is out of range")
    _require(0 <= settlement.status <= STATUS_MAX, "status is out of range")
    # Postgres has no NUL in text; it would refuse the whole batch.
    _require("\\u0000" not in event.payload, "contains a NUL")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Unreadable(otherwise)


def _fingerprint(fields: Fields) -> bytes:
    content = (b"kind", b"account", b"cost", b"data", b"terms", b"usage", b"held")
    digest = hashlib.blake2b(digest_size=16)
    for name in content:
        value = fields.get(name, b"")
        digest.update(b"%d:" % len(value) + value)
    return digest.digest()


def _payload(fields: Fields) -> str:
    """The raw fields as JSON that Postgres takes: what is not text is escaped."""
    shown = {_shown(name): _shown(value) for name, value in fields.items()}
    return msgspec.json.encode(shown).decode()


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\0")
