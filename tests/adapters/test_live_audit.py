"""Redis is compared with Postgres piece by piece, however much it holds, and what is wrong is found in any piece."""

from collections.abc import AsyncIterator
from uuid import uuid4

import psycopg
import pytest

from gateway.adapters.live_audit import check_redis
from gateway.adapters.redis.link import RedisLink
from gateway.core.shards import SHARD_KEYS, shard_of
from tests.books import settlement
from tests.books_redis import Desk

AT_ONCE = 4
UNANSWERED_MAX = AT_ONCE + 8  # the accounts, and what is read beside them
MANY = 3 * AT_ONCE + 1
SHARD = 7


@pytest.fixture
async def narrow(redis_url: str) -> AsyncIterator[RedisLink]:
    """A connection that refuses whoever asks much at once."""
    link = RedisLink(redis_url, command_timeout_ms=5000, pending_commands_max=UNANSWERED_MAX)
    await link.open()
    yield link
    await link.close()


@pytest.fixture
async def neighbours(desk: Desk, database_url: str) -> list[str]:
    """Many accounts of one shard, loaded."""
    ids: list[str] = []
    while len(ids) < MANY:
        if shard_of(one := str(uuid4())) == SHARD:
            ids.append(one)
    with psycopg.connect(database_url, autocommit=True) as owner:
        for each in ids:
            owner.execute("INSERT INTO account (id, name) VALUES (%s, %s)", (each, each))
            for bucket in ("promo", "paid", "debt"):
                owner.execute(
                    "INSERT INTO balance (shard, account_id, bucket) VALUES (%s, %s, %s)", (SHARD, each, bucket)
                )
    for each in ids:
        await desk.credits.load(each, 0, 0)
    return ids


async def test_a_shard_of_many_accounts_is_read_a_few_at_a_time(
    desk: Desk, narrow: RedisLink, neighbours: list[str]
) -> None:
    heard: list[int] = []
    assert await check_redis(desk.books.pool, narrow, at_once=AT_ONCE, on_progress=heard.append) == ([], [])
    assert heard == sorted(heard)
    assert heard[-1] == len(neighbours)


async def test_many_open_holds_and_unposted_events_are_read_a_few_at_a_time(desk: Desk, narrow: RedisLink) -> None:
    account = await desk.books.account(grant=10**9)
    for _ in range(MANY):
        await desk.serve(settlement(account.id, 100))
        await desk.open_hold(settlement(account.id, 10))
    assert await check_redis(desk.books.pool, narrow, at_once=AT_ONCE) == ([], [])


async def test_what_is_wrong_is_found_among_many_and_told_once(
    desk: Desk, narrow: RedisLink, neighbours: list[str]
) -> None:
    keys = SHARD_KEYS[SHARD]
    first, last = neighbours[0], neighbours[-1]
    await desk.books.redis.hincrby(keys.account(first), "held", 5)
    await desk.books.redis.hincrby(keys.account(last), "balance", 3)
    state = await desk.credits.shard_state(SHARD)
    assert state is not None
    for unknown in ("no-uuid", str(uuid4())):
        await desk.books.redis.hset(
            keys.account(unknown), mapping={"epoch": state.epoch, "balance": 1, "held": 0, "credit_seq": 0}
        )
    held, balances = await check_redis(desk.books.pool, narrow, at_once=AT_ONCE)
    assert held == [f"account {first}: 5 held, open holds 0"]
    assert len(balances) == 3
    assert f"account {last}: 3 in Redis, 0 by Postgres and the outbox" in balances
    assert "account no-uuid is in Redis only" in balances


async def test_what_cannot_be_read_is_told_and_hides_nothing_else(
    desk: Desk, narrow: RedisLink, neighbours: list[str]
) -> None:
    keys = SHARD_KEYS[SHARD]
    lost, garbled, wrong, no_hash = neighbours[:4]
    await desk.books.redis.set(keys.account(no_hash), "no hash")
    await desk.books.redis.hdel(keys.account(lost), "held")
    await desk.books.redis.hset(keys.account(garbled), "balance", "much")
    await desk.books.redis.hincrby(keys.account(wrong), "balance", 3)
    account = await desk.books.account(grant=10**9)
    hold = await desk.open_hold(settlement(account.id, 10))
    key = SHARD_KEYS[shard_of(account.id)].hold(hold.request_id)
    await desk.link.command(b"SET", key, f"x open {account.id} 1 f 10 0 {{}} {{}}")
    held, balances = await check_redis(desk.books.pool, narrow, at_once=AT_ONCE)
    unreadable = {f"account {each}: its amounts in Redis are no whole numbers" for each in (lost, garbled, no_hash)}
    assert set(held) == unreadable | {f"account {account.id}: 10 held, open holds 0"}
    assert set(balances) == unreadable | {f"account {wrong}: 3 in Redis, 0 by Postgres and the outbox"}


async def test_an_event_that_the_outbox_lost_leaves_its_shard_uncompared(desk: Desk, narrow: RedisLink) -> None:
    account = await desk.books.account(grant=10**9)
    for _ in range(3):
        await desk.serve(settlement(account.id, 100))
    keys = SHARD_KEYS[shard_of(account.id)]
    _, second, _ = await desk.link.command(b"XRANGE", keys.outbox, b"-", b"+")
    await desk.link.command(b"XDEL", keys.outbox, second[0])
    held, balances = await check_redis(desk.books.pool, narrow, at_once=AT_ONCE)
    assert held == []
    assert balances == [
        f"shard {shard_of(account.id)} could not be compared: its outbox tells 2 of 3 events; try again"
    ]


async def test_a_redis_that_was_emptied_is_no_proof(desk: Desk, narrow: RedisLink) -> None:
    await desk.lose_redis()
    _, balances = await check_redis(desk.books.pool, narrow, at_once=AT_ONCE)
    assert "shard 0 could not be compared: Redis is at epoch 0, Postgres at 1; try again" in balances
