"""Counting: sets the counters of capped holders in Redis to what Postgres, the outbox and the open holds say.

A call waits for it when Redis has no counter of its window, and when its gateway first sees the holder's caps: what is
counted there may be of an earlier time with caps. Then it is counted once more a little later: by then every gateway
knows them, and no call is opened any more that tells nothing.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import structlog

from gateway.adapters.postgres.charges import Charges, Settled
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.redis.counters import Charged, Counters, OutboxAhead
from gateway.adapters.redis.credits import Credits, ShardCold
from gateway.adapters.redis.link import RedisScriptError
from gateway.core.accounting.posting import Position
from gateway.core.guard.caps import Holder
from gateway.core.guard.windows import UTC_NAME, Windows, opened_ms, windows_at
from gateway.core.holds import Hold
from gateway.core.shards import shard_of

log = structlog.get_logger(__name__)

# By then every gateway follows what was set, and most calls that were opened without have ended.
SETTLED_S = 5.0
ATTEMPTS_MAX = 5


class Kept(NamedTuple):
    """What is kept of a holder: the windows that have caps, in its account's time zone."""

    time_zone: str
    has_day: bool
    has_month: bool


class CapCounting:
    """`clock` gives seconds of any monotonic clock. A step counts at most `batch_max` holders."""

    def __init__(
        self,
        charges: Charges,
        credits: Credits,
        counters: Counters,
        *,
        batch_max: int,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._charges = charges
        self._credits = credits
        self._counters = counters
        self._batch_max = batch_max
        self._clock = clock
        self._now_ms = now_ms
        self._counting: dict[Holder, asyncio.Task[None]] = {}
        self._due: dict[Holder, tuple[float, Kept]] = {}  # in the order in which they are due
        self._unsure: set[Holder] = set()

    def first_seen(self, holder: Holder, kept: Kept) -> None:
        """Caps are new to this process: its next call waits until they are counted."""
        self._unsure.add(holder)
        self.settle(holder, kept)

    def is_unsure(self, hold: Hold) -> bool:
        """Whether a hold is counted in what was not counted since its caps were first seen."""
        terms = hold.terms
        return bool(self._unsure) and any(
            Holder(terms.account_id, each.level, terms.id_of(each.level)) in self._unsure for each in terms.counted
        )

    def settle(self, holder: Holder, kept: Kept) -> None:
        """Have a holder counted anew in a little while."""
        self._due.pop(holder, None)
        self._due[holder] = self._clock() + SETTLED_S, kept

    async def step(self) -> int:
        """Count what is due; returns how many holders. What fails is due again later.

        Raises LedgerUnavailable: without Postgres a counter that is there cannot become truer, and reading the outbox,
        which grows meanwhile, holds up Redis.
        """
        now = self._clock()
        due: list[tuple[Holder, Kept]] = []
        for holder, (at, kept) in self._due.items():
            if at > now or len(due) == self._batch_max:
                break
            due.append((holder, kept))
        for holder, kept in due:
            self.settle(holder, kept)  # it stays due unless all goes well, and if its caps change meanwhile
            again = self._due[holder]
            try:
                is_right = await self._count(
                    holder, windows_at(self._now_ms(), kept.time_zone), kept, is_waited_for=False
                )
                if is_right and self._due.get(holder) is again:
                    del self._due[holder]
            except RedisScriptError as error:  # refused again later, and nobody else's waits behind it
                log.error("caps cannot be counted", holder=holder.id, account_id=holder.account_id, error=str(error))
        return len(due)

    async def count(self, hold: Hold) -> None:
        """Count what a hold is counted in, once however many ask. Raises ShardCold or RedisUnavailable."""
        terms, time_ms = hold.terms, opened_ms(hold.request_id)
        for counted in terms.counted:
            time_zone = (counted.day or counted.month).partition("@")[2] or UTC_NAME
            kept = Kept(time_zone, bool(counted.day), bool(counted.month))
            holder = Holder(terms.account_id, counted.level, terms.id_of(counted.level))
            task = self._counting.get(holder)
            if task is None:
                task = asyncio.create_task(self._count_waited_for(holder, windows_at(time_ms, kept.time_zone), kept))
                self._counting[holder] = task
                task.add_done_callback(partial(self._counted, holder))
            await asyncio.shield(task)

    async def _count_waited_for(self, holder: Holder, windows: Windows, kept: Kept) -> None:
        if not await self._count(holder, windows, kept, is_waited_for=True):
            self.settle(holder, kept)

    def _counted(self, holder: Holder, task: "asyncio.Task[None]") -> None:
        self._counting.pop(holder, None)
        if not task.cancelled():
            task.exception()  # seen, also when everybody who waited has left

    async def _count(self, holder: Holder, windows: Windows, kept: Kept, *, is_waited_for: bool) -> bool:
        """Count a holder; whether that stands, or must be done again: too much may be in it, for a while."""
        settled: Settled | None = None
        for attempt in range(ATTEMPTS_MAX):
            is_checked = attempt < ATTEMPTS_MAX - 1
            try:
                if attempt == 1:  # summing up took longer than the outbox stands still
                    settled = await self._charges.settled(holder, windows, has_month=kept.has_month)
                charged = await self._charges.of(
                    holder, windows, has_day=kept.has_day, has_month=kept.has_month, settled=settled
                )
                self._credits.adopt(shard_of(holder.account_id), charged.epoch)
            except LedgerUnavailable:
                if not is_waited_for:
                    raise
                # What Postgres has of a window was in Redis' counter before it went away, and is not lowered now, or
                # there was no call: a window without a counter has begun since. And what was not posted is in the
                # outbox still.
                charged, is_checked = await self._uncharged(holder, kept), False
            try:
                uncounted = await self._counters.count(holder, windows, charged, is_checked=is_checked)
            except OutboxAhead:
                continue
            self._unsure.discard(holder)
            return uncounted == 0 and is_checked
        raise AssertionError("the last attempt is not checked")

    async def _uncharged(self, holder: Holder, kept: Kept) -> Charged:
        state = await self._credits.shard_state(shard_of(holder.account_id))
        if state is None:
            raise ShardCold(f"shard {shard_of(holder.account_id)}")
        return Charged(state.epoch, Position(0, 0), 0 if kept.has_day else None, 0 if kept.has_month else None)
