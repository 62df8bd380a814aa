"""The poster: every event once, wherever it or a store is broken off; a lost event is noticed."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import closing
from urllib.parse import urlsplit

import asyncpg
import psycopg
from psycopg import sql

from gateway.adapters.redis.link import RedisUnavailable
from gateway.core.accounting.posting import Position
from gateway.core.shards import SHARD_KEYS, shard_of
from gateway.workers.poster import Poster
from tests.books import Books, end_fields, now_ms, settlement, terminate_clients
from tests.books_redis import Desk
from tests.patience import PATIENCE_S


class DeafRedis:
    """Refuses to take an acknowledgement, as a Redis that dies right after the commit does."""

    async def ack(self, shard: int, position: tuple[int, int], request_ids: Sequence[str]) -> None:
        raise RedisUnavailable("it died")


def poster_that_never_acknowledges(books: Books) -> Poster:
    return Poster(
        books.pool,
        books.ledger,
        books.outbox,
        DeafRedis(),
        batch_events_max=100,
        batch_ms=0,
        ack_ms=0,
        block_ms=1,
        now_ms=now_ms,
    )


async def test_what_gateways_settle_is_posted_and_leaves_the_outbox(desk: Desk) -> None:
    books, poster = desk.books, desk.poster()
    accounts = [await books.account(grant=1000) for _ in range(5)]
    for account in accounts:
        for cost in (10, 0, 20):
            await desk.serve(settlement(account.id, cost))
    await desk.post_all(poster)
    assert [await books.balance(account) for account in accounts] == [970] * 5
    assert (poster.posted_total, poster.dead_total, poster.gaps_total) == (15, 0, 0)
    assert poster.rows_total == 15 + 10 * 3
    assert poster.lag_s < 5
    assert await books.outbox.length(range(64)) == 0
    for account in accounts:
        known = await desk.credits.balance(account.id)
        assert known is not None
        assert (known.balance, known.held) == (970, 0)
    await poster.close()
    await books.require_sound()


async def test_an_acknowledged_hold_may_be_forgotten_and_others_may_not(desk: Desk) -> None:
    account = await desk.books.account(grant=1000)
    ended, still_open = settlement(account.id, 10), settlement(account.id, 10)
    await desk.serve(ended)
    await desk.open_hold(still_open)
    poster = desk.poster()
    await desk.post_all(poster)
    await poster.close()
    keys = SHARD_KEYS[shard_of(account.id)]
    assert await desk.books.redis.pttl(keys.hold(ended.request_id)) > 0
    assert await desk.books.redis.pttl(keys.hold(still_open.request_id)) == -1


async def test_posted_events_are_let_go_together_and_a_successor_lets_go_of_what_was_left(desk: Desk) -> None:
    books, poster = desk.books, desk.poster(ack_ms=60_000)
    account = await books.account(grant=1000)
    await desk.serve(settlement(account.id, 10))
    assert await poster.step() == 1
    assert await books.outbox.length(range(64)) == 0
    await desk.serve(settlement(account.id, 10))
    assert await poster.step() == 1
    assert await poster.step() == 0
    assert await books.outbox.length(range(64)) == 1
    await poster.close()
    successor = desk.poster()
    assert await successor.step() == 1
    assert (successor.posted_total, successor.repeated_total) == (0, 1)
    assert await books.outbox.length(range(64)) == 0
    assert await books.balance(account) == 980
    await successor.close()


async def test_a_crash_after_the_commit_and_before_the_acknowledgement_repeats_nothing(desk: Desk) -> None:
    books = desk.books
    account = await books.account(grant=1000)
    ended = settlement(account.id, 10)
    await desk.serve(ended)
    crashing = poster_that_never_acknowledges(books)
    assert await crashing.step() == 0
    await crashing.close()
    assert await books.balance(account) == 990
    assert await books.outbox.length(range(64)) == 1
    successor = desk.poster()
    assert await successor.step() == 1
    assert (successor.posted_total, successor.repeated_total) == (0, 1)
    await successor.step()
    assert await books.outbox.length(range(64)) == 0
    assert await books.redis.pttl(SHARD_KEYS[shard_of(account.id)].hold(ended.request_id)) > 0
    await successor.close()
    assert await books.balance(account) == 990


async def test_a_cut_database_connection_is_waited_out(desk: Desk, database_url: str) -> None:
    books, poster = desk.books, desk.poster()
    account = await books.account(grant=1000)
    await desk.serve(settlement(account.id, 10))
    await desk.post_all(poster)
    for _ in range(3):
        await desk.serve(settlement(account.id, 10))
        assert await terminate_clients(database_url) > 0
        async with asyncio.timeout(PATIENCE_S):
            while poster.posted_total + poster.repeated_total < 1 or await books.outbox.length(range(64)):
                await poster.step()
    assert poster.outages_total > 0
    await poster.close()
    assert await books.balance(account) == 960
    await books.require_sound()


async def test_a_database_that_lets_nobody_in_is_waited_for(
    desk: Desk, database_url: str, postgres_server_url: str
) -> None:
    books, poster = desk.books, desk.poster()
    account = await books.account(grant=1000)
    await books.put(end_fields(settlement(account.id, 10)))
    name = sql.Identifier(urlsplit(database_url).path[1:])
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with closing(psycopg.connect(postgres_server_url, autocommit=True)) as server:
        await terminate_clients(database_url)
        server.execute(allow.format(name, sql.SQL("false")))
        try:
            for _ in range(3):
                assert await poster.step() == 0
        finally:
            server.execute(allow.format(name, sql.SQL("true")))
    assert poster.outages_total == 3
    async with asyncio.timeout(PATIENCE_S):
        while not poster.posted_total:
            await poster.step()
    await poster.close()
    assert await books.balance(account) == 990


async def test_two_posters_share_the_work_and_post_everything_once(desk: Desk) -> None:
    books = desk.books
    accounts = [await books.account(grant=10_000) for _ in range(8)]
    first, second = desk.poster(batch_events_max=8), desk.poster(batch_events_max=8)

    async def post() -> None:
        for step in itertools.count():
            await asyncio.gather(first.step(), second.step())
            if step == 10:
                await first.close()  # as if it had died: its shards are free for the other
            if is_over.is_set():
                return

    is_over = asyncio.Event()
    posting = asyncio.create_task(post())
    for _ in range(20):
        await asyncio.gather(*(desk.serve(settlement(account.id, 5)) for account in accounts))
    async with asyncio.timeout(PATIENCE_S):
        while await desk.unposted():
            await asyncio.sleep(0.01)
    is_over.set()
    await posting
    assert first.owned_shards + second.owned_shards == 64
    assert [await books.balance(account) for account in accounts] == [9900] * 8
    assert first.posted_total + second.posted_total == 160
    assert first.gaps_total + second.gaps_total == 0
    await first.close()
    await second.close()
    await books.require_sound()


async def test_a_missing_event_is_an_alarm_and_stops_nothing(desk: Desk) -> None:
    books, poster = desk.books, desk.poster()
    account = await books.account(grant=1000)
    shard = shard_of(account.id)
    await books.put(end_fields(settlement(account.id, 10)))
    books.skip(shard)
    await books.put(end_fields(settlement(account.id, 10)))
    await books.put({b"nonsense": b"1"}, shard=shard)
    await books.put(end_fields(settlement(account.id, 10)))
    while (await books.ledger.positions())[shard] != Position(1, 5):
        await poster.step()
    await poster.close()
    assert (poster.posted_total, poster.gaps_total, poster.dead_total) == (3, 1, 2)
    assert await books.balance(account) == 970
    letter = await books.pool.fetchrow("SELECT payload FROM dead_letter WHERE reason = 'gap'")
    assert letter is not None
    assert letter["payload"] == '{"next": "1-3", "after": "1-1"}'


async def test_an_idle_poster_waits_for_the_first_event_and_then_posts_it(desk: Desk) -> None:
    books, poster = desk.books, desk.poster(block_ms=5000)
    account = await books.account(grant=1000)
    waiting = asyncio.create_task(poster.step())
    while not poster.owned_shards:
        await asyncio.sleep(0)
    await desk.serve(settlement(account.id, 10))
    async with asyncio.timeout(PATIENCE_S):
        assert await waiting == 1
    await poster.close()
    assert await books.balance(account) == 990


async def test_a_redis_that_was_rolled_back_is_noticed_and_marked_for_rebuild(desk: Desk) -> None:
    books, poster = desk.books, desk.poster()
    account = await books.account(grant=1000)
    await desk.serve(settlement(account.id, 1))
    before = await desk.snapshot(account.id)
    for _ in range(2):
        await desk.serve(settlement(account.id, 10))
    await desk.post_all(poster)
    await poster.close()
    await desk.roll_back(account.id, before)
    for _ in range(3):  # overtakes what Postgres has before anybody looks
        await desk.serve(settlement(account.id, 100))
    poster = desk.poster()
    await poster.step()
    await poster.close()
    shard = shard_of(account.id)
    assert (await books.ledger.shards())[shard].is_rebuilding
    assert await desk.rebuilder.step() == 1
    await desk.recovery.load_account(account.id)
    known = await desk.credits.balance(account.id)
    assert known is not None
    assert known.balance == await books.balance(account) == 1000 - 1 - 20 - 300
    assert await books.count("dead_letter") == 0


async def test_a_database_that_only_reads_for_a_while_is_waited_for(desk: Desk, database_url: str) -> None:
    """Its disk is full, or it is a standby now: connections of that time stay so, and are let go."""
    account = await desk.books.account(grant=100)
    await desk.serve(settlement(account.id, 30))
    poster, admin = desk.poster(), await asyncpg.connect(database_url)
    name = await admin.fetchval("SELECT quote_ident(current_database())")
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await desk.books.pool.expire_connections()
    while not poster.outages_total:
        assert await poster.step() == 0
    await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await admin.close()
    await desk.post_all(poster)
    await poster.close()
    assert await desk.books.balance(account) == 70
