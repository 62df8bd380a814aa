"""The process beside the gateways, built out of its workers."""

import asyncio
from collections.abc import Coroutine, Iterator

import structlog
from prometheus_client.core import Metric

from gateway.app.caps import cap_watcher
from gateway.app.notices import NoticeParts
from gateway.app.payments import stripe_parts
from gateway.app.reconcile import ReconcileParts
from gateway.app.sources import now, now_ms
from gateway.app.stores import Stores
from gateway.app.watching import WatchParts
from gateway.config import Config
from gateway.loops import every
from gateway.web.metrics import counters, gauges
from gateway.workers.bookkeeper import Bookkeeper
from gateway.workers.poster import Poster
from gateway.workers.rebuilder import Rebuilder
from gateway.workers.sealer import Sealer
from gateway.workers.sweeper import Sweeper

log = structlog.get_logger(__name__)

# How long a stopping worker may still post; the rest waits in the outbox for the next start.
FINAL_POST_S_MAX = 10.0
LETTERS_INTERVAL_S = 5.0
# Behind by more than this, the poster has the database to itself, but for one seal at a time.
SEALING_LAG_S_MAX = 0.5


class Workers:
    """What each worker is made of, how often it steps, and what they tell together."""

    def __init__(self, config: Config, stores: Stores) -> None:
        self._config = config
        self._stores = stores
        self.poster = Poster(
            stores.pool,
            stores.ledger,
            stores.outbox,
            stores.credits,
            batch_events_max=config.poster.batch_events_max,
            batch_ms=config.poster.batch_ms,
            ack_ms=config.poster.ack_ms,
            block_ms=config.poster.block_ms,
            now_ms=now_ms,
        )
        self.sweeper = Sweeper(stores.credits, stores.recovery.load_account, batch_max=config.workers.sweep_batch_max)
        self.sealer = Sealer(
            stores.seals,
            batch_max=config.workers.seal_batch_max,
            gives_way=lambda: self.poster.lag_s > SEALING_LAG_S_MAX,
        )
        self.rebuilder = Rebuilder(stores.recovery)
        self.bookkeeper = Bookkeeper(stores.provider_costs, stores.statements, now=now)
        self.cap_watcher = cap_watcher(config, stores)
        self.stripe = stripe_parts(config, stores)
        self._notices = NoticeParts(config, stores.notices)
        self._watch = WatchParts(config, stores)
        self._reconciling = ReconcileParts(config, stores)
        self._letters_open = 0
        self._is_stopping = False
        self._has_posted = asyncio.Event()

    def loops(self) -> list[Coroutine[None, None, None]]:
        workers = self._config.workers
        return [
            *(self.stripe.loops() if self.stripe is not None else []),
            *self._notices.loops(),
            *self._watch.loops(),
            every(workers.rebuild_check_ms / 1000, "rebuild", self.rebuilder.step),
            self._post(),
            every(workers.sweep_ms / 1000, "sweep", self.sweeper.step),
            every(workers.credit_ms / 1000, "credit", self._stores.crediter.step),
            every(workers.seal_ms / 1000, "seal", self.sealer.step),
            every(workers.book_ms / 1000, "book costs", self.bookkeeper.step),
            every(self._config.caps.watch_ms / 1000, "watch caps", self.cap_watcher.step),
            *self._reconciling.loops(),
            every(LETTERS_INTERVAL_S, "count dead letters", self._count_letters),
        ]

    async def readiness(self) -> str:
        if not self._stores.link.available:
            return "Redis cannot be reached: nothing is posted"
        behind_s = self._behind_s()
        is_behind = behind_s > self._config.workers.ready_lag_s_max
        return f"posting is {behind_s:.0f} s behind: is PostgreSQL there?" if is_behind else ""

    def _behind_s(self) -> float:
        """How far posting is behind: the last event's age, or how long PostgreSQL has not been there for the next."""
        since = self.poster.waiting_since
        waited_s = asyncio.get_running_loop().time() - since if since is not None else 0.0
        return max(self.poster.lag_s, waited_s)

    def metrics(self) -> Iterator[Metric]:
        poster, rebuilder = self.poster, self.rebuilder
        yield from self._reconciling.metrics()
        if self.stripe is not None:
            yield from self.stripe.metrics()
        yield from self._notices.metrics()
        yield from self._watch.metrics()
        yield from gauges(
            {
                "tollgate_posting_lag_seconds": ("How far posting is behind.", self._behind_s),
                "tollgate_posting_shards": ("Shards this process posts.", lambda: poster.owned_shards),
                "tollgate_dead_letters_open": ("Dead letters to decide on.", lambda: self._letters_open),
                "tollgate_costs_unknown": (
                    "1 when a day's cost cannot be told: its rate card is missing.",
                    lambda: float(bool(self.bookkeeper.waits_for)),
                ),
                "tollgate_credits_pending": ("Movements Redis must learn of.", lambda: self._stores.crediter.pending),
            }
        )
        yield from counters(
            {
                "tollgate_posted": ("Events posted.", lambda: poster.posted_total),
                "tollgate_posted_again": ("Repeated events, which moved nothing.", lambda: poster.repeated_total),
                "tollgate_dead_letters": ("Events that could not be posted.", lambda: poster.dead_total),
                "tollgate_outbox_gaps": (
                    "Events missing from the outbox: money may be lost.",
                    lambda: poster.gaps_total,
                ),
                "tollgate_sealed": ("Transfers sealed.", lambda: self.sealer.sealed_total),
                "tollgate_rebuilt_shards": ("Shards rebuilt.", lambda: rebuilder.rebuilt_total),
            }
        )

    async def _count_letters(self) -> int:
        self._letters_open = await self._stores.dead_letters.count_open()
        return 0

    async def _post(self) -> None:
        """Post until there is nothing left and no more is wanted. One loop does it all: its steps never overlap."""
        try:
            while await self.poster.step() or not self._is_stopping:
                pass
        finally:
            await self.poster.close()
            self._has_posted.set()

    async def stop(self) -> None:
        """Let what the gateways left be posted, within a bound, and the shards be let go of."""
        self._is_stopping = True
        try:
            async with asyncio.timeout(FINAL_POST_S_MAX):
                await self._has_posted.wait()
        except TimeoutError:
            log.warning("stopped with events unposted; the next start posts them")
        await self.close()

    async def close(self) -> None:
        """Close what the workers reach the outside with."""
        if self.stripe is not None:
            await self.stripe.close()
        await self._notices.close()
