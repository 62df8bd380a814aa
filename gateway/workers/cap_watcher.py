"""Tells of caps that are nearly used up: looks where something was spent lately, and tells once in each window.

Redis' counters, which hold what running calls may cost, only say where to look: what is told is what was charged.
"""

from collections.abc import Callable
from datetime import timedelta

import structlog

from gateway.adapters.postgres.caps import OVERLAP_S, CapDirectory
from gateway.adapters.postgres.charges import Charges
from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.adapters.postgres.notices import Notices
from gateway.adapters.redis.counters import Counters
from gateway.adapters.redis.link import RedisScriptError
from gateway.core.access.callers import Caller
from gateway.core.guard.caps import UNLIMITED, Caps, Holder, Level, id_of
from gateway.core.guard.notices import Kind
from gateway.core.guard.windows import UnknownTimeZone, Window, Windows, ends_at, windows_at
from gateway.core.money import MicroCredits, format_credits

log = structlog.get_logger(__name__)

# Windows that were told of are remembered, so that they are not asked after again; the notices know them for good.
TOLD_MAX = 100_000


class CapWatcher:
    """`clock` gives seconds of any monotonic clock."""

    def __init__(
        self,
        pool: Pool,
        directory: CapDirectory,
        counters: Counters,
        charges: Charges,
        notices: Notices,
        *,
        soft_percent: int,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._directory = directory
        self._counters = counters
        self._charges = charges
        self._notices = notices
        self._soft_percent = soft_percent
        self._clock = clock
        self._now_ms = now_ms
        self._sql = load_queries("caps")
        self._looked_at = clock()
        self._told: set[tuple[Holder, str]] = set()

    async def step(self) -> int:
        """Look once; returns how many notices were raised. Raises LedgerUnavailable, RedisUnavailable, ShardCold."""
        looked_at = self._clock()
        await self._directory.refresh_step()
        since = timedelta(seconds=looked_at - self._looked_at + OVERLAP_S)
        with outages():
            rows = await self._pool.fetch(self._sql["spenders"], since)
        raised, seen = 0, set[Holder]()
        for row in rows:
            caller = Caller(
                str(row["account_id"]),
                row["key_id"],
                member_id=row["member_id"] or None,
                plan=row["plan"],
                time_zone=row["time_zone"],
            )
            for level, caps in zip(Level, self._directory.caps(caller), strict=True):
                holder = Holder(caller.account_id, level.value, id_of(caller, level))
                if holder not in seen and (caps.day is not None or caps.month is not None):
                    raised += await self._look(holder, caps, caller.time_zone)
                seen.add(holder)
        self._looked_at = looked_at
        return raised

    async def _look(self, holder: Holder, caps: Caps, time_zone: str) -> int:
        try:
            windows = windows_at(self._now_ms(), time_zone)
            used = await self._counters.used(holder, windows)
        except (RedisScriptError, UnknownTimeZone) as error:  # nobody else's waits behind it
            log.error("caps cannot be watched", holder=holder.id, account_id=holder.account_id, error=str(error))
            return 0
        raised = 0
        for window, cap, counted in ((windows.day, caps.day, used.day), (windows.month, caps.month, used.month)):
            if cap is None or cap == UNLIMITED or counted is None or (holder, window.name) in self._told:
                continue
            if self._is_nearly_used(counted, cap):
                raised += await self._tell_if_charged(holder, window, windows, cap, time_zone)
        return raised

    async def _tell_if_charged(
        self, holder: Holder, window: Window, windows: Windows, cap: MicroCredits, time_zone: str
    ) -> bool:
        is_day = window is windows.day
        charged = await self._charges.of(holder, windows, has_day=is_day, has_month=not is_day)
        spent = (charged.day if is_day else charged.month) or 0
        if not self._is_nearly_used(spent, cap):
            return False
        name = f"{'day' if is_day else 'month'} of this {holder.level}"
        fields: dict[str, str | int] = {
            "name": name if holder.level == Level.ACCOUNT else f"{name} ({holder.id})",
            "used": format_credits(spent),
            "cap": format_credits(cap),
            "percent": spent * 100 // cap if cap else 100,
            "resets_at": ends_at(window, time_zone),
        }
        subject = f"{holder.level}:{holder.id}:{window.name}"
        raised = await self._notices.tell(Kind.SOFT_CAP, holder.account_id, fields, subject=subject)
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told.add((holder, window.name))
        return raised

    def _is_nearly_used(self, used: MicroCredits, cap: MicroCredits) -> bool:
        return used * 100 >= cap * self._soft_percent
