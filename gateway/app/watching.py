"""What watches spending, built out of the configuration; part of the workers."""

from collections.abc import Coroutine, Iterator

from prometheus_client.core import Metric

from gateway.adapters.postgres.spending import SpendingBook
from gateway.app.stores import Stores
from gateway.config import Config
from gateway.config.sections import Anomaly
from gateway.core.guard.anomaly import Bound, Rules
from gateway.core.money import UCR_PER_CREDIT
from gateway.loops import every
from gateway.web.metrics import counters, gauges
from gateway.workers.watcher import Watcher

FORGET_S, COUNT_S = 600.0, 15.0


class WatchParts:
    def __init__(self, config: Config, stores: Stores) -> None:
        self._watch_s = config.anomaly.watch_ms / 1000
        self._spending = SpendingBook(stores.pool)
        self._reviews = stores.reviews
        self._open_reviews = 0
        self.watcher = Watcher(
            self._spending, stores.reviews, stores.alerts, mode=config.anomaly.mode, rules=rules_of(config.anomaly)
        )

    def loops(self) -> list[Coroutine[None, None, None]]:
        return [
            every(self._watch_s, "watch spending", self.watcher.step),
            every(FORGET_S, "forget spending", self._spending.forget),
            every(COUNT_S, "count reviews", self._count),
        ]

    def metrics(self) -> Iterator[Metric]:
        yield from counters({"tollgate_reviews": ("Reviews opened.", lambda: self.watcher.opened_total)})
        yield from gauges({"tollgate_reviews_open": ("Reviews to decide on.", lambda: self._open_reviews)})

    async def _count(self) -> int:
        self._open_reviews = await self._reviews.count_open()
        return 0


def rules_of(section: Anomaly) -> Rules:
    return Rules(
        burst=section.burst_credits * UCR_PER_CREDIT,
        burst_minutes=section.burst_minutes,
        hour=Bound(section.hour_times, section.hour_credits_min * UCR_PER_CREDIT),
        day=Bound(section.day_times, section.day_credits_min * UCR_PER_CREDIT),
        known_min=section.known_min,
        width=section.width,
    )
