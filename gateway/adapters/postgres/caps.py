"""Caps as Postgres has them, followed by polling, so that a call reads what bounds it without waiting.

While Postgres is away, what is known goes on holding; nothing is admitted before it was known once.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec
import structlog

from gateway.adapters.counting import Kept
from gateway.adapters.postgres.database import LedgerUnavailable, Pool, load_queries, outages
from gateway.core.access.callers import Caller
from gateway.core.errors import BillingUnavailable
from gateway.core.guard.caps import UNLIMITED, Bounds, Caps, CapsByLevel, Holder, Level, bounds_of, id_of
from gateway.core.guard.plans import Plans

log = structlog.get_logger(__name__)

# Longer than any transaction that changes a cap may take.
OVERLAP_S = 30.0
# Of callers whose bounds are kept; beyond it the least recently made are made again.
BOUNDS_MAX = 100_000


class _Made(NamedTuple):
    caller: Caller
    bounds: Bounds
    revision: int


class _Seen(NamedTuple):
    """How a holder's counted caps were when they were last looked at."""

    counted: tuple[bool, bool, bool]
    time_zone: str
    revision: int  # at which they came to count something else


class CapDirectory:
    """`on_caps` is told of every holder whose counters must be looked after: caps that are new to this process.

    It is told once for all callers who share them, and again when they did not hold for a while.
    """

    def __init__(
        self,
        pool: Pool,
        plans: Plans,
        *,
        poll_s: float,
        clock: Callable[[], float],
        on_caps: Callable[[Holder, Kept], None],
    ) -> None:
        self._pool = pool
        self._plans = plans
        self._poll_s = poll_s
        self._clock = clock
        self._on_caps = on_caps
        self._sql = load_queries("caps")
        self._caps: dict[tuple[str, str], Caps] = {}
        self._revision = 0
        self._turned: dict[tuple[str, str], int] = {}  # at which revision a place's caps came to count something else
        self._made: OrderedDict[tuple[str, str, str | None], _Made] = OrderedDict()
        self._seen: OrderedDict[Holder, _Seen] = OrderedDict()
        self._fresh_at: float | None = None  # every change before this moment is known

    def bounds(self, caller: Caller, time_ms: int) -> Bounds:
        """What bounds a call of `caller` opened at `time_ms`; raises `BillingUnavailable` until that is known."""
        made = self._made.get(_place(caller))
        if (
            made is not None
            and made.revision == self._revision
            and (made.caller is caller or made.caller == caller)
            and made.bounds.hold_at(time_ms)
        ):
            return made.bounds
        return self._make(caller, time_ms)

    def _make(self, caller: Caller, time_ms: int) -> Bounds:
        if self._fresh_at is None:
            raise BillingUnavailable(retry_after_s=1)
        bounds = bounds_of(caller, self.caps(caller), time_ms)
        place = _place(caller)
        self._made[place] = _Made(caller, bounds, self._revision)
        self._made.move_to_end(place)
        if len(self._made) > BOUNDS_MAX:
            self._made.popitem(last=False)
        for level, caps in zip(Level, bounds.caps, strict=True):
            self._look_at(level, caps, caller)
        return bounds

    def _look_at(self, level: Level, caps: Caps, caller: Caller) -> None:
        holder = Holder(caller.account_id, level.value, id_of(caller, level))
        before = self._seen.pop(holder, None)
        if not caps.is_counted:
            if before is not None:
                self._on_caps(holder, Kept(caller.time_zone, has_day=False, has_month=False))
            return
        turned = self._turned.get((level.value, holder.id), 0)
        if level is Level.ACCOUNT:
            turned = max(turned, self._turned.get(("plan", caller.plan), 0))
        # In another time zone all windows are new: other gateways went on in the old ones for a moment.
        self._seen[holder] = seen = _Seen(_counted(caps), caller.time_zone, turned)
        if len(self._seen) > BOUNDS_MAX:
            self._seen.popitem(last=False)
        if seen != before:
            self._on_caps(holder, Kept(caller.time_zone, caps.day is not None, caps.month is not None))

    def caps(self, caller: Caller) -> CapsByLevel:
        """The caps of each level as they are known, those of the account over those of its plan."""
        plan = self._caps.get(("plan", caller.plan), Caps()).over(self._plans.caps(caller.plan))
        return CapsByLevel(
            self._caps.get(("account", caller.account_id), Caps()).over(plan),
            self._caps.get(("member", caller.member_id or ""), Caps()),
            self._caps.get(("key", caller.key_id), Caps()),
        )

    async def refresh_step(self) -> int:
        """Learn what was set; returns how many caps changed. Raises `LedgerUnavailable`."""
        looked_at = self._clock()
        since = None if self._fresh_at is None else timedelta(seconds=looked_at - self._fresh_at + OVERLAP_S)
        with outages():
            rows = await self._pool.fetch(self._sql["changed"], since)
        changed = 0
        for row in rows:
            place, caps = (row["level"], row["holder"]), read_caps(row)
            before = self._caps.get(place, Caps())
            if before != caps:
                self._caps[place] = caps
                changed += 1
            if _counted(before) != _counted(caps):
                self._turned[place] = self._revision + 1
        self._revision += changed > 0
        self._fresh_at = looked_at
        return changed

    async def run(self) -> None:
        """Poll for ever. An outage is logged once."""
        was_away = False
        while True:
            try:
                await self.refresh_step()
            except LedgerUnavailable as error:
                if not was_away:
                    log.warning("changed caps cannot be read", error=str(error))
                was_away = True
            else:
                was_away = False
            await asyncio.sleep(self._poll_s)


def read_caps(row: Any) -> Caps:
    """Caps from a row of the table."""
    values = {name: row[name] for name in Caps.__struct_fields__}
    return msgspec.convert(values, Caps)


def _place(caller: Caller) -> tuple[str, str, str | None]:
    """A service that reports of many accounts has one key for all."""
    return caller.account_id, caller.key_id, caller.member_id


def _counted(caps: Caps) -> tuple[bool, bool, bool]:
    day, month, concurrent = (each not in (None, UNLIMITED) for each in (caps.day, caps.month, caps.concurrent))
    return day, month, concurrent
