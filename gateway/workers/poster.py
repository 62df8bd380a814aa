"""The poster: moves the events of Redis' outbox into Postgres, in order, once, and only then acknowledges them.

A shard's position is committed together with what it stands for, so a crash anywhere means reading some events again,
which changes nothing. One poster at a time works on a shard: it holds an advisory lock on the connection it writes
with, and the position in Postgres is checked in every transaction, lock or not.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import structlog

from gateway.adapters.postgres.database import LedgerUnavailable, Pool, PooledConnection, outages
from gateway.adapters.postgres.ledger import Ledger, Posted
from gateway.adapters.redis.link import RedisUnavailable
from gateway.adapters.redis.outbox import Outbox, OutboxUnavailable
from gateway.core.accounting.posting import DeadLetter, Event, Position
from gateway.core.holds import Outcome
from gateway.core.shards import SHARDS

log = structlog.get_logger(__name__)

SHARD_LOCKS = 7_077_002
CLAIM_INTERVAL_S = 1.0
PARTITION_INTERVAL_S = 3600.0
PARTITION_MONTHS_AHEAD = 3
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.05, 2.0
# A read may return its count from each stream; few streams are busy at once.
BUSY_SHARDS_MIN = 4

_CLAIM = "SELECT id FROM unnest($2::integer[]) AS id WHERE pg_try_advisory_lock($1::integer, id)"


class Acknowledger(Protocol):
    """What the poster asks of Redis once Postgres has the events."""

    async def ack(self, shard: int, position: tuple[int, int], request_ids: Sequence[str]) -> None:
        """Let go of the shard's events up to `position`, and in time of these holds."""
        ...


class Poster:
    """Posts. The plain attributes are for metrics: they only grow, except `lag_s` and `owned_shards`."""

    def __init__(
        self,
        pool: Pool,
        ledger: Ledger,
        outbox: Outbox,
        credits: Acknowledger,
        *,
        batch_events_max: int,
        batch_ms: int,
        block_ms: int,
        ack_ms: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._outbox = outbox
        self._credits = credits
        self._batch_events_max = batch_events_max
        self._batch_s = batch_ms / 1000
        self._block_ms = block_ms
        self._ack_s = ack_ms / 1000
        self._now_ms = now_ms
        self._connection: PooledConnection | None = None
        self._positions: dict[int, Position] = {}  # of the shards this poster holds: what Postgres has
        self._read_to: dict[int, Position] = {}  # and what was read
        self._unacknowledged: dict[int, list[str]] = {}  # requests by shard
        self._busy_shards = BUSY_SHARDS_MIN
        self._claim_at = self._partitions_at = self._acknowledge_at = self._read_at = 0.0
        self._backoff_s = BACKOFF_S_MIN
        self.posted_total = 0
        self.repeated_total = 0
        self.rows_total = 0
        self.dead_total = 0
        self.gaps_total = 0
        self.outages_total = 0
        self.lag_s = 0.0
        self.waiting_since: float | None = None  # of the loop's clock: how long a store has been away

    @property
    def owned_shards(self) -> int:
        return len(self._positions)

    async def step(self) -> int:
        """Post what there is, or wait a little for the first event; returns how many events were looked at.

        An outage of either store is waited out here, longer each time: nothing is lost by it, and nothing is raised.
        """
        try:
            looked_at = await self._step()
        except (LedgerUnavailable, OutboxUnavailable, RedisUnavailable) as error:
            self.outages_total += 1
            self.waiting_since = self.waiting_since or asyncio.get_running_loop().time()
            log.warning("posting waits", error=str(error), backoff_s=self._backoff_s)
            if isinstance(error, LedgerUnavailable):
                await self.close()
                await self._pool.expire_connections()  # one to what only reads stays so, whatever comes back
            else:
                # It may come back without what was about to be acknowledged, and with other events in that place.
                self._unacknowledged.clear()
                self._read_from_the_start(self._positions)
            await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(self._backoff_s * 2, BACKOFF_S_MAX)
            return 0
        self._backoff_s = BACKOFF_S_MIN
        self.waiting_since = None
        return looked_at

    async def close(self) -> None:
        """Let go of the shards, for another poster to take. Call it between two steps."""
        connection, self._connection = self._connection, None
        self._positions.clear()
        self._read_to.clear()
        self._unacknowledged.clear()
        self._claim_at = 0.0
        if connection is not None:
            try:
                with outages():
                    await self._pool.release(connection)
            except LedgerUnavailable as error:
                log.info("connection was lost", error=str(error))  # and its locks with it: nothing is left to release

    async def _step(self) -> int:
        connection = await self._claim_shards()
        await self._acknowledge()
        if not self._positions:
            await asyncio.sleep(self._block_ms / 1000)
            return 0
        loop = asyncio.get_running_loop()
        # What comes within `batch_ms` of the last read goes into one transaction with this one's.
        await asyncio.sleep(max(0.0, self._read_at + self._batch_s - loop.time()))
        count = max(1, self._batch_events_max // self._busy_shards)
        events = await self._outbox.read(self._read_to, count=count, block_ms=self._block_ms)
        self._read_at = loop.time()
        self._busy_shards = max(BUSY_SHARDS_MIN, len({event.shard for event in events}))
        for batch in _batches(events, self._batch_events_max):
            await self._post(connection, [event for event in batch if event.shard in self._read_to])
        self._read_from_the_start(self._positions.keys() - self._read_to.keys())
        if not events:
            self.lag_s = 0.0
        return len(events)

    async def _post(self, connection: PooledConnection, batch: list[Event | DeadLetter]) -> None:
        if not batch:
            return
        posted = await self._ledger.post(connection, batch, after=self._positions)
        self._positions |= posted.positions
        self._count(posted, batch)
        for event in batch:
            if event.shard not in posted.stale:
                self._read_to[event.shard] = event.position
                requests = self._unacknowledged.setdefault(event.shard, [])
                if isinstance(event, Event):
                    requests.append(event.request_id)
        if posted.stale:
            # Rebuilt under us, or taken over by another poster: read anew, from where the shard stands by then.
            for shard in posted.stale:
                del self._read_to[shard]
            await self._look_up_positions(posted.stale)
        await self._acknowledge()

    def _count(self, posted: Posted, batch: Sequence[Event | DeadLetter]) -> None:
        self.posted_total += posted.events
        self.repeated_total += posted.repeated
        self.rows_total += posted.rows
        self.dead_total += len(posted.dead)
        gaps = posted.dead.count("gap")
        self.gaps_total += gaps
        if posted.rolled_back:
            log.error("Redis lost what Postgres has: its shards are rebuilt", shards=sorted(posted.rolled_back))
        if gaps:
            log.error("events are missing from the outbox: money may be lost", gaps=gaps)
        if len(posted.dead) > gaps:
            log.error("events could not be posted; see table dead_letter", reasons=sorted(set(posted.dead) - {"gap"}))
        last = next((e for e in reversed(batch) if isinstance(e, Event) and not _is_lapse(e)), None)
        if last is not None:
            self.lag_s = max(0.0, (self._now_ms() - last.settlement.event_at_ms) / 1000)

    async def _claim_shards(self) -> PooledConnection:
        """Take every shard that no other poster holds, and make partitions ahead, each from time to time."""
        now = asyncio.get_running_loop().time()
        if self._connection is None:
            with outages():
                self._connection = await self._pool.acquire()
        if now >= self._partitions_at:
            await self._ledger.ensure_partitions(PARTITION_MONTHS_AHEAD)
            self._partitions_at = now + PARTITION_INTERVAL_S
        if now >= self._claim_at and len(self._positions) < SHARDS:
            wanted = [shard for shard in range(SHARDS) if shard not in self._positions]
            with outages():
                rows = await self._connection.fetch(_CLAIM, SHARD_LOCKS, wanted)
            self._claim_at = now + CLAIM_INTERVAL_S
            if rows:
                shards = [row["id"] for row in rows]
                await self._look_up_positions(shards)
                self._read_from_the_start(shards)
        return self._connection

    async def _look_up_positions(self, shards: Iterable[int]) -> None:
        positions = await self._ledger.positions()
        self._positions |= {shard: positions[shard] for shard in shards}

    def _read_from_the_start(self, shards: Iterable[int]) -> None:
        """What stands before the position was not acknowledged, or stems from a Redis that was rolled back."""
        self._read_to |= {shard: Position(0, 0) for shard in shards}

    async def _acknowledge(self) -> None:
        """Tell Redis, of a while's events at once. What it does not take is read, judged and told again."""
        now = asyncio.get_running_loop().time()
        if not self._unacknowledged or now < self._acknowledge_at:
            return
        self._acknowledge_at = now + self._ack_s
        waiting, self._unacknowledged = self._unacknowledged, {}
        await asyncio.gather(*(self._credits.ack(shard, self._positions[shard], ids) for shard, ids in waiting.items()))


def _is_lapse(event: Event) -> bool:
    # Its event_at is the hold's opening, which says nothing about how far behind posting is.
    return event.settlement.outcome is Outcome.LAPSED


def _batches(events: list[Event | DeadLetter], size: int) -> Iterator[list[Event | DeadLetter]]:
    for start in range(0, len(events), size):
        yield events[start : start + size]
