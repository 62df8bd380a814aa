"""What a gateway needs for caps: the plans' defaults, the caps that were set, and the counting of what they count."""

import time
from collections.abc import Coroutine
from contextlib import suppress

from gateway.adapters.counting import CapCounting
from gateway.adapters.postgres.caps import CapDirectory
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.app.sources import now_ms
from gateway.app.stores import Stores
from gateway.config import Config
from gateway.loops import every
from gateway.workers.cap_watcher import CapWatcher


class CapParts:
    """Of a gateway."""

    def __init__(self, config: Config, stores: Stores) -> None:
        self._config = config.caps
        self.counting = CapCounting(
            stores.charges,
            stores.credits,
            stores.counters,
            batch_max=config.caps.count_batch_max,
            clock=time.monotonic,
            now_ms=now_ms,
        )
        self.directory = CapDirectory(
            stores.pool,
            stores.plans,
            poll_s=config.caps.poll_ms / 1000,
            clock=time.monotonic,
            on_caps=self.counting.first_seen,
        )

    async def start(self) -> None:
        """Read the caps that are set; while Postgres is away calls are refused, and the loop reads them later."""
        with suppress(LedgerUnavailable):
            await self.directory.refresh_step()

    def loops(self) -> list[Coroutine[None, None, None]]:
        return [self.directory.run(), every(self._config.count_ms / 1000, "count caps", self.counting.step)]


def cap_watcher(config: Config, stores: Stores) -> CapWatcher:
    """Of the workers."""
    directory = CapDirectory(
        stores.pool,
        stores.plans,
        poll_s=config.caps.poll_ms / 1000,
        clock=time.monotonic,
        on_caps=lambda holder, kept: None,  # no call is made here
    )
    return CapWatcher(
        stores.pool,
        directory,
        stores.counters,
        stores.charges,
        stores.notices,
        soft_percent=config.caps.soft_percent,
        clock=time.monotonic,
        now_ms=now_ms,
    )
