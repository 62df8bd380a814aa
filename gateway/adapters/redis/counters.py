"""Counters: what capped accounts, members and keys have used, as Redis counts it beside their holds (lua/count.lua)."""

from typing import NamedTuple

import msgspec

from gateway.adapters.redis.credits import ShardCold
from gateway.adapters.redis.link import RedisLink
from gateway.adapters.redis.scripts import Scripts
from gateway.core.accounting.posting import Position
from gateway.core.guard.caps import Holder
from gateway.core.guard.windows import Window, Windows, id_bound, windows_at
from gateway.core.money import MicroCredits
from gateway.core.shards import SHARD_KEYS, shard_of

# Calls may still end in a window that was over this long ago.
KEPT_MS = 2 * 86_400_000


class OutboxAhead(Exception):
    """The outbox does not follow on what was read of Postgres: it must be read again."""


class Charged(NamedTuple):
    """What Postgres has charged to a holder, all of one moment; None for a window that has no cap."""

    epoch: int
    position: Position  # of the last event that it had of the shard
    day: MicroCredits | None
    month: MicroCredits | None


class Used(msgspec.Struct, frozen=True):
    """What a holder uses now, in µcr and calls; None where it is not counted."""

    day: MicroCredits | None
    month: MicroCredits | None
    open_calls: int | None


class Counters:
    def __init__(self, link: RedisLink, scripts: Scripts) -> None:
        self._link = link
        self._scripts = scripts

    async def count(self, holder: Holder, windows: Windows, charged: Charged, *, is_checked: bool = True) -> int:
        """Set a holder's counters to the truth; how many open calls are in them whose end will not be told.

        Unless `is_checked`, the outbox may lack events. Raises OutboxAhead, ShardCold.
        """
        keys = SHARD_KEYS[shard_of(holder.account_id)]
        reply = await self._scripts.run(
            self._link,
            "count",
            (keys.shard, keys.caps(holder.level, holder.id), keys.leases, keys.outbox, keys.hold("")),
            charged.epoch,
            *charged.position,
            int(is_checked),
            holder.level,
            holder.id,
            holder.account_id,
            _kept_from(windows.day),
            *_window(windows.day, charged.day),
            *_window(windows.month, charged.month),
        )
        if reply[0] == b"BEHIND":
            raise OutboxAhead(holder.id)
        if reply[0] == b"EPOCH":
            raise ShardCold(f"shard {shard_of(holder.account_id)}")
        return int(reply[1])

    async def used(self, holder: Holder, windows: Windows) -> Used:
        """What a holder uses, as its next call will find it."""
        keys = SHARD_KEYS[shard_of(holder.account_id)]
        epoch = await self._link.command(b"HGET", keys.shard, b"epoch")
        found = await self._link.command(
            b"HMGET", keys.caps(holder.level, holder.id), b"epoch", windows.day.name, windows.month.name, b"open"
        )
        if epoch is None or found[0] != epoch:
            return Used(None, None, None)
        return Used(*(None if value is None else int(value) for value in found[1:]))


def _kept_from(day: Window) -> str:
    """The date from which counters are kept."""
    time_zone = day.name.partition("@")[2]
    return windows_at(day.start_ms - KEPT_MS, time_zone).day.name.partition("@")[0]


def _window(window: Window, charged: MicroCredits | None) -> tuple[str | int, ...]:
    return window.name, id_bound(window.start_ms), id_bound(window.end_ms), "" if charged is None else charged
