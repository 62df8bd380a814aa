"""The rebuilder: compares Redis' shards with Postgres and rebuilds those that Redis lost or has in an older state."""

import structlog

from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.recovery import Recovery
from gateway.adapters.redis.credits import CreditsError
from gateway.adapters.redis.link import RedisUnavailable
from gateway.adapters.redis.outbox import OutboxUnavailable

log = structlog.get_logger(__name__)


class Rebuilder:
    def __init__(self, recovery: Recovery) -> None:
        self._recovery = recovery
        self.rebuilt_total = 0
        self.failures_total = 0

    async def step(self) -> int:
        """Rebuild what must be; returns how many shards. What fails is tried again at the next step."""
        try:
            shards = await self._recovery.rebuild_where_needed()
        except (LedgerUnavailable, OutboxUnavailable, RedisUnavailable, CreditsError) as error:
            self.failures_total += 1
            log.warning("rebuilding waits", error=str(error))
            return 0
        if shards:
            log.info("shards rebuilt", count=len(shards), shards=shards if len(shards) < 64 else "all")
        self.rebuilt_total += len(shards)
        return len(shards)
