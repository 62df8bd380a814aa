"""A bookkeeper's desk for tests: accounts and a ledger in a fresh database, and outboxes that a test fills by hand."""

import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg
import msgspec
from redis.asyncio import Redis

from gateway.adapters.postgres.account_desk import AccountDesk
from gateway.adapters.postgres.accounts import Account, Accounts
from gateway.adapters.postgres.audit_log import AuditLog, Signature
from gateway.adapters.postgres.database import SYSTEM, Pool, open_pool
from gateway.adapters.postgres.keys import Keys
from gateway.adapters.postgres.ledger import Ledger, Posted
from gateway.adapters.postgres.members import Members
from gateway.adapters.redis.outbox import Outbox, decode
from gateway.core.accounting.posting import DeadLetter, Event, Position
from gateway.core.calls.usage import Usage
from gateway.core.guard.caps import Caps
from gateway.core.guard.plans import Plans
from gateway.core.holds import Outcome, Phase, Settlement, Terms
from gateway.core.ids import uuid7
from gateway.core.shards import SHARD_KEYS, shard_of
from tests.patience import PATIENCE_S

OPERATOR = Signature("olga", "a test")


Fields = dict[bytes, bytes]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def new_id() -> str:
    return uuid7(now_ms(), os.urandom(10))


def settlement(account_id: str, cost: int, *, request_id: str | None = None, rounding: int = 0) -> Settlement:
    terms = Terms(account_id, "key_1", "/v1/chat/completions", "gpt-5.4", "card@1", now_ms())
    return Settlement(
        request_id=request_id or new_id(),
        terms=terms,
        outcome=Outcome.EXACT if cost else Outcome.VOID,
        held=max(cost, 1),
        cost=cost,
        rounding=rounding,
        event_at_ms=now_ms(),
        usage=Usage(input=1, output=2) if cost else Usage(),
        rate_key="gpt-5.4/default" if cost else "",
        status=200 if cost else 500,
    )


def end_fields(what: Settlement, *, phase: Phase = Phase.END, charged: int | None = None) -> Fields:
    """The fields of a capture, void or correction, as the scripts write them."""
    return {
        b"phase": phase.encode(),
        b"kind": b"void" if what.outcome is Outcome.VOID else b"capture",
        b"request_id": what.request_id.encode(),
        b"account": what.terms.account_id.encode(),
        b"cost": b"%d" % (what.cost if charged is None else charged),
        b"data": msgspec.json.encode(what),
    }


def lapse_fields(what: Settlement) -> Fields:
    return {
        b"phase": b"end",
        b"kind": b"lapse",
        b"request_id": what.request_id.encode(),
        b"account": what.terms.account_id.encode(),
        b"cost": b"%d" % what.cost,
        b"held": b"%d" % what.held,
        b"terms": msgspec.json.encode(what.terms),
        b"usage": msgspec.json.encode(what.usage),
    }


class Books:
    def __init__(self, pool: Pool, redis: Redis) -> None:
        self.pool = pool
        self.redis = redis
        self.ledger = Ledger(pool, new_id=new_id)
        self.audit_log = AuditLog(pool)
        self.accounts = Accounts(pool, self.ledger, self.audit_log, new_id=new_id, now_ms=now_ms)
        self.account_desk = AccountDesk(pool, self.audit_log, Plans({"team": Caps()}))
        self.keys = Keys(pool, self.audit_log, new_id=new_id, random_bytes=os.urandom, now=lambda: datetime.now(UTC))
        self.members = Members(pool, self.audit_log, new_id=new_id)
        self.outbox = Outbox(redis)
        self._names = itertools.count()
        self._seqs: dict[int, int] = {}

    async def account(self, grant: int = 0) -> Account:
        """A new account with `grant` µcr."""
        account = await self.accounts.create(f"account {next(self._names)}")
        if grant:
            await self.accounts.grant(account.id, grant, "for the test")
        return account

    def event(self, fields: Fields, *, epoch: int = 0, shard: int | None = None) -> Event | DeadLetter:
        """The next event of its account's shard, read as the poster reads it."""
        if shard is None:
            shard = shard_of(fields[b"account"].decode())
        self._seqs[shard] = self._seqs.get(shard, 0) + 1
        return decode(shard, b"%d-%d" % (epoch, self._seqs[shard]), fields)

    async def put(self, fields: Fields, *, epoch: int = 1, shard: int | None = None) -> Position:
        """Append to the outbox of the account's shard."""
        if shard is None:
            shard = shard_of(fields[b"account"].decode())
        self._seqs[shard] = self._seqs.get(shard, 0) + 1
        position = Position(epoch, self._seqs[shard])
        await self.redis.xadd(SHARD_KEYS[shard].outbox, dict(fields.items()), id=f"{position.epoch}-{position.seq}")
        return position

    def skip(self, shard: int) -> None:
        """Lose the next event of a shard."""
        self._seqs[shard] = self._seqs.get(shard, 0) + 1

    async def post(self, *events: Event | DeadLetter) -> Posted:
        async with self.pool.acquire() as connection:
            return await self.ledger.post(connection, events)

    async def balance(self, account: Account) -> int:
        return (await self.accounts.balance(account.id)).total

    async def count(self, table: str) -> int:
        counted: int = await self.pool.fetchval(f"SELECT count(*) FROM {table}")
        return counted

    async def system(self, bucket: str) -> int:
        sql = "SELECT sum(amount)::bigint FROM balance WHERE account_id = $1 AND bucket = $2"
        amount: int = await self.pool.fetchval(sql, SYSTEM, bucket)
        return amount

    async def require_sound(self) -> None:
        """Every transfer sums to zero, and every balance is the sum of its entries."""
        unbalanced = "SELECT transfer_id FROM entry GROUP BY 1 HAVING sum(amount) <> 0"
        assert await self.pool.fetch(unbalanced) == []
        drifted = """
            SELECT account_id, bucket, shard, balance.amount, summed.amount FROM balance
            FULL JOIN (SELECT account_id, bucket, shard, sum(amount) AS amount FROM entry GROUP BY 1, 2, 3) AS summed
            USING (account_id, bucket, shard)
            WHERE coalesce(balance.amount, 0) <> coalesce(summed.amount, 0)"""
        assert await self.pool.fetch(drifted) == []


@asynccontextmanager
async def open_books(database_url: str, redis_url: str) -> AsyncIterator[Books]:
    redis = Redis.from_url(redis_url)
    try:
        async with await open_pool(
            database_url, connections_max=6, connect_timeout_s=PATIENCE_S, command_timeout_s=PATIENCE_S
        ) as pool:
            yield Books(pool, redis)
    finally:
        await redis.aclose()


async def terminate_clients(database_url: str, application: str = "tollgate") -> int:
    """Cut every connection of the service to this database, as a crashing server does; returns how many."""
    connection = await asyncpg.connect(database_url)
    try:
        cut: int = await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = $1",
            application,
        )
        return cut
    finally:
        await connection.close()
