"""Reads a shard's accounts together with their open holds and unposted events, some hundreds of accounts at a time.

Callers' commands wait behind each transaction, so it must be short: the holds and events that many batches need are
read ahead of it, page by page, and kept; it only reads what has come since. It writes nothing.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.adapters.redis.link import RedisLink
from gateway.adapters.redis.stored_holds import owner_of, read_hold
from gateway.core.accounting.posting import Position
from gateway.core.holds import HoldState
from gateway.core.money import MicroCredits
from gateway.core.shards import SHARD_KEYS


class ShardMoved(Exception):
    """The shard moved on while it was read."""


class LoadedAccount(msgspec.Struct, frozen=True):
    """An account as Redis has it, with what belongs to it, all of one moment."""

    id: str
    balance: MicroCredits
    held: MicroCredits
    credit_seq: int
    in_holds: MicroCredits  # the sum of its open holds
    unposted: MicroCredits  # what events that Postgres does not have took
    is_readable: bool = True  # else its own amounts are told as 0


class _Unposted(msgspec.Struct, frozen=True):
    position: Position
    account_id: str
    cost: MicroCredits


class ShardReader:
    """`at_once`: the most accounts, holds or events that are read by one command or transaction."""

    def __init__(self, link: RedisLink, shard: int, *, at_once: int) -> None:
        self._link = link
        self._keys = SHARD_KEYS[shard]
        self._at_once = at_once
        self._owners: dict[str, str] = {}  # of the holds that were open lately
        self._unposted: deque[_Unposted] = deque()
        self._read_to = Position(0, 0)

    async def read(self, account_ids: Sequence[str], epoch: int, posted: Position) -> list[LoadedAccount]:
        """Those of the accounts that are loaded in `epoch`, at the moment; Postgres has events up to `posted`.

        Raises `ShardMoved`, and `RedisUnavailable`.
        """
        await self._read_holds()
        await self._read_events(posted)
        request_ids = self._holds_of(account_ids)
        keys = self._keys
        (redis_epoch, seq), leased, events, lines, *found = await self._atomically(
            (b"HMGET", keys.shard, b"epoch", b"seq"),
            (b"ZRANGE", keys.leases, 0, -1),
            self._events_after_those_read(),
            (
                b"MGET",
                keys.leases,
                *map(keys.hold, request_ids),
            ),  # it wants one key: of what is no string it tells nothing
            *((b"HMGET", keys.account(each), b"epoch", b"balance", b"held", b"credit_seq") for each in account_ids),
        )
        if int(redis_epoch or 0) != epoch:
            raise ShardMoved(f"Redis is at epoch {int(redis_epoch or 0)}, Postgres at {epoch}")
        self._keep(events)
        if (expected := int(seq or 0) - posted.seq) != len(self._unposted):
            raise ShardMoved(f"its outbox tells {len(self._unposted)} of {expected} events")
        in_holds = _open_holds(lines, epoch)
        unposted: Counter[str] = Counter()
        for event in self._unposted:
            unposted[event.account_id] += event.cost
        loaded = [
            _loaded(each, fields[1:] if is_hash else (), in_holds[each], unposted[each])
            for each, fields in zip(account_ids, found, strict=True)
            if not (is_hash := isinstance(fields, list)) or fields[0] == redis_epoch  # else Redis refused to read it
        ]
        is_any_new = any(raw.decode() not in self._owners for raw in leased)
        if is_any_new and any(each.held != each.in_holds for each in loaded):
            raise ShardMoved("calls went on")
        return loaded

    def _holds_of(self, account_ids: Sequence[str]) -> list[str]:
        wanted = frozenset(account_ids)
        return [request_id for request_id, owner in self._owners.items() if owner in wanted]

    async def _read_holds(self) -> None:
        """Learn whose the open holds are; a hold never changes its owner."""
        leased = [raw.decode() for raw in await self._link.command(b"ZRANGE", self._keys.leases, 0, -1)]
        known = {each: self._owners[each] for each in leased if each in self._owners}
        new = [each for each in leased if each not in known]
        for start in range(0, len(new), self._at_once):
            page = new[start : start + self._at_once]
            lines = await self._link.command(b"MGET", *map(self._keys.hold, page))
            known.update({each: owner_of(line) for each, line in zip(page, lines, strict=True)})
        self._owners = known

    async def _read_events(self, posted: Position) -> None:
        """Drop the events that Postgres has by now, and read those that have come."""
        while self._unposted and self._unposted[0].position <= posted:
            self._unposted.popleft()
        self._read_to = max(self._read_to, posted)
        while True:
            events = await self._link.command(*self._events_after_those_read())
            self._keep(events)
            if len(events) < self._at_once:
                return

    def _events_after_those_read(self) -> tuple[Any, ...]:
        after = f"({self._read_to.epoch}-{self._read_to.seq}"
        return b"XRANGE", self._keys.outbox, after, b"+", b"COUNT", self._at_once

    def _keep(self, events: Sequence[Any]) -> None:
        for entry_id, flat in events:
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            event_epoch, _, seq = entry_id.partition(b"-")
            self._read_to = Position(int(event_epoch), int(seq))
            owner = fields.get(b"account", b"").decode()
            self._unposted.append(_Unposted(self._read_to, owner, int(fields.get(b"cost", 0))))

    async def _atomically(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Run commands in one MULTI. They leave in one tick, so nothing else of this connection comes between."""
        command = self._link.command
        replies = [command(b"MULTI"), *(command(*each) for each in commands), command(b"EXEC")]
        result: list[Any] = (await asyncio.gather(*replies))[-1]
        return result


def _loaded(
    account_id: str, amounts: Sequence[bytes | None], in_holds: MicroCredits, unposted: MicroCredits
) -> LoadedAccount:
    try:
        balance, held, credit_seq = (int(each or b"") for each in amounts)
    except ValueError:
        return LoadedAccount(account_id, 0, 0, 0, in_holds, unposted, is_readable=False)
    return LoadedAccount(account_id, balance, held, credit_seq, in_holds, unposted)


def _open_holds(lines: Sequence[bytes | None], epoch: int) -> Counter[str]:
    """What is held by open holds of this epoch, by account. One that cannot be read is missing, and so noticed."""
    held: Counter[str] = Counter()
    for line in lines:
        try:
            hold = read_hold(line or b"")
        except ValueError:
            continue
        if hold.epoch == epoch and hold.state is HoldState.OPEN:
            held[hold.account_id] += hold.amount
    return held
