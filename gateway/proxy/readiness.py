"""Whether this gateway can take calls, looked at from time to time; where not, one line says why.

The line is for the public listener too: it names no host and no account.
"""

import asyncio

from gateway.adapters.redis.credits import Credits
from gateway.adapters.redis.link import RedisLink, RedisUnavailable
from gateway.adapters.redis.outbox import Outbox, OutboxUnavailable
from gateway.adapters.redis.settings import figures
from gateway.core.shards import SHARDS

INTERVAL_S, MISSING_INTERVAL_S = 1.0, 0.1
REDIS_AWAY = "Redis cannot be reached: calls get 503"


class Readiness:
    def __init__(
        self,
        link: RedisLink,
        credits: Credits,
        outbox: Outbox,
        *,
        backlog_events_max: int,
        memory_percent_max: int,
    ) -> None:
        self._link = link
        self._credits = credits
        self._outbox = outbox
        self._backlog_events_max = backlog_events_max
        self._memory_percent_max = memory_percent_max
        self._missing = "not looked at the stores yet"
        self.backlog_events = 0

    @property
    def missing(self) -> str:
        """ "" = ready."""
        return self._missing if self._link.available else REDIS_AWAY

    async def run(self) -> None:
        """Look for ever; more often while something is missing."""
        while True:
            await self.step()
            await asyncio.sleep(MISSING_INTERVAL_S if self.missing else INTERVAL_S)

    async def wait(self, patience_s: float) -> None:
        """Return when nothing is missing, or after `patience_s`: a worker that starts beside this builds the shards."""
        give_up_at = asyncio.get_running_loop().time() + patience_s
        await self.step()
        while self.missing and asyncio.get_running_loop().time() < give_up_at:
            await asyncio.sleep(MISSING_INTERVAL_S)
            await self.step()

    async def step(self) -> None:
        """Look once. What does not answer is told, not raised."""
        try:
            self._missing = await self._unbuilt() or await self._full() or await self._behind()
        except (RedisUnavailable, OutboxUnavailable):
            self._missing = REDIS_AWAY

    async def _unbuilt(self) -> str:
        states = await self._credits.shard_states()
        seconds, _ = await self._link.command(b"TIME")
        now_ms = int(seconds) * 1000 + 999
        unbuilt = sum(state is None or state.ready_at_ms > now_ms for state in states)
        return f"{unbuilt} of {SHARDS} shards are not built in Redis: is a worker running?" if unbuilt else ""

    async def _full(self) -> str:
        memory = await figures(self._link, b"memory")
        used, most = int(memory.get(b"used_memory", 0)), int(memory.get(b"maxmemory", 0))
        percent = 100 * used // most if most else 0
        return f"Redis' memory is used to {percent} %" if percent > self._memory_percent_max else ""

    async def _behind(self) -> str:
        self.backlog_events = await self._outbox.length(range(SHARDS))
        if self.backlog_events <= self._backlog_events_max:
            return ""
        return f"{self.backlog_events} events wait to be posted: is PostgreSQL there, and a worker running?"
