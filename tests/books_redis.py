"""The Redis side of the desk: the real scripts, credits and recovery beside the books."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.adapters.postgres.credit_outbox import CreditOutbox
from gateway.adapters.recovery import Recovery
from gateway.adapters.redis.credits import AccountUnloaded, Credits, Settled
from gateway.adapters.redis.link import RedisLink
from gateway.adapters.redis.scripts import Scripts
from gateway.core.holds import Hold, Outcome, Settlement
from gateway.core.shards import SHARD_KEYS, SHARDS, shard_of
from gateway.resources import shipped
from gateway.workers.crediter import Crediter
from gateway.workers.poster import Acknowledger, Poster
from gateway.workers.rebuilder import Rebuilder
from tests.books import Books, now_ms


class Desk:
    """Everything that works for the books, on real stores."""

    def __init__(self, books: Books, link: RedisLink) -> None:
        self.books = books
        self.link = link
        self.credits = Credits(
            link, Scripts(shipped("lua")), lease_ms=60_000, refusal_ttl_ms=1000, tombstone_ttl_ms=60_000
        )
        self.recovery = Recovery(books.pool, books.ledger, self.credits, books.outbox, link, grace_ms=0)
        self.rebuilder = Rebuilder(self.recovery)
        self.credit_outbox = CreditOutbox(books.pool)
        self.crediter = Crediter(self.credit_outbox, self.credits, self.recovery)

    def poster(
        self, block_ms: int = 1, batch_events_max: int = 100, ack_ms: int = 0, told: Acknowledger | None = None
    ) -> Poster:
        return Poster(
            self.books.pool,
            self.books.ledger,
            self.books.outbox,
            told or self.credits,
            batch_events_max=batch_events_max,
            batch_ms=0,
            ack_ms=ack_ms,
            block_ms=block_ms,
            now_ms=now_ms,
        )

    async def open_hold(self, settlement: Settlement) -> Hold:
        hold = Hold(settlement.request_id, settlement.held, "f", settlement.terms)
        try:
            await self.credits.reserve(hold)
        except AccountUnloaded:
            await self.recovery.load_account(settlement.terms.account_id)
            await self.credits.reserve(hold)
        return hold

    async def serve(self, settlement: Settlement) -> Settled:
        """Hold and settle one call, as a gateway does."""
        await self.open_hold(settlement)
        end = self.credits.void if settlement.outcome is Outcome.VOID else self.credits.capture
        return await end(settlement)

    async def post_all(self, poster: Poster) -> None:
        """Post until Postgres stands where Redis stands."""
        while await self.unposted():
            await poster.step()

    async def unposted(self) -> int:
        positions = await self.books.ledger.positions()
        states = await self.credits.shard_states()
        return sum(s.seq - p.seq for s, p in zip(states, positions, strict=True) if s is not None)

    async def lose_redis(self) -> None:
        """What a Redis without its data looks like to this process."""
        await self.books.redis.flushdb()

    async def snapshot(self, account_id: str) -> dict[bytes, bytes]:
        """All keys of the account's shard, as DUMP gives them, to roll back to."""
        pattern = SHARD_KEYS[shard_of(account_id)].shard.replace(b"shard", b"*")
        keys = [key async for key in self.books.redis.scan_iter(match=pattern)]
        dumps = {key: await self.books.redis.dump(key) for key in keys}
        return {key: value for key, value in dumps.items() if value is not None}

    async def roll_back(self, account_id: str, snapshot: dict[bytes, bytes]) -> None:
        pattern = SHARD_KEYS[shard_of(account_id)].shard.replace(b"shard", b"*")
        async for key in self.books.redis.scan_iter(match=pattern):
            await self.books.redis.delete(key)
        for key, value in snapshot.items():
            await self.books.redis.restore(key, 0, value)


@asynccontextmanager
async def open_desk(books: Books, redis_url: str) -> AsyncIterator[Desk]:
    link = RedisLink(redis_url, command_timeout_ms=5000)
    await link.open()
    try:
        desk = Desk(books, link)
        assert await desk.rebuilder.step() == SHARDS
        yield desk
    finally:
        await link.close()
