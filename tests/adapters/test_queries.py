"""Every statement of every .sql file is one that PostgreSQL takes, whether or not another test happens to run it."""

from pathlib import Path

import asyncpg

from gateway.adapters.postgres import database
from gateway.adapters.postgres.database import load_queries
from gateway.adapters.postgres.stripe_inbox import StripeInbox
from gateway.adapters.stripe.objects import Told
from tests.books import open_books

FILES = sorted(path.stem for path in Path(database.__file__).parent.glob("*.sql"))


async def test_postgres_takes_every_statement(database_url: str) -> None:
    refused = []
    connection = await asyncpg.connect(database_url)
    try:
        for file in FILES:
            for name, statement in load_queries(file).items():
                spoken = [line for line in statement.splitlines() if not line.startswith("--")]
                if spoken[0].startswith("WHERE"):  # the end of one: it is put behind another
                    continue
                try:
                    await connection.prepare(statement)
                except asyncpg.PostgresError as error:
                    refused.append(f"{file}.sql, {name}: {error}")
    finally:
        await connection.close()
    assert refused == []


async def test_stripes_waiting_and_dead_events_are_counted(database_url: str, redis_url: str) -> None:
    async with open_books(database_url, redis_url) as books:
        inbox = StripeInbox(books.pool)
        assert await inbox.counts() == ({}, 0.0)
        for name in ("evt_new", "evt_done", "evt_dead"):
            await inbox.keep(Told(name, "charge.succeeded", "ch_1", "pi_1", False, 0, b"{}"), {}, "webhook")
        await inbox.processed("evt_done")
        await inbox.dead("evt_dead", "no such purchase")
        states, oldest_s = await inbox.counts()
        assert states == {"received": 1, "dead": 1}
        assert oldest_s > 0
        await inbox.processed("evt_new")
        assert await inbox.counts() == ({"dead": 1}, 0.0)
