"""The sweeper ends what dead gateways left, and nothing else."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from gateway.adapters.redis.credits import Credits, HoldMissing
from gateway.adapters.redis.link import RedisLink, RedisUnavailable
from gateway.adapters.redis.scripts import Scripts
from gateway.core.calls.usage import Usage
from gateway.core.holds import Balance, Hold, HoldState, Terms
from gateway.core.shards import SHARD_KEYS, shard_of
from gateway.resources import shipped
from gateway.workers.sweeper import Sweeper
from tests.books import settlement
from tests.books_redis import Desk


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[RedisLink]:
    link = RedisLink(redis_url)
    await link.open()
    yield link
    await link.close()


@pytest.fixture
async def credits(link: RedisLink) -> Credits:
    return Credits(link, Scripts(shipped("lua")), lease_ms=60_000, refusal_ttl_ms=60_000, tombstone_ttl_ms=60_000)


async def nothing_to_load(account_id: str) -> None:
    raise AssertionError(f"{account_id} is loaded")


async def open_hold(credits: Credits, account_id: str) -> Hold:
    shard = shard_of(account_id)
    if await credits.shard_state(shard) is None:
        await credits.rebuild(shard, 1, 0, 0)
    await credits.load(account_id, 1_000, 0)
    hold = Hold(str(uuid4()), 100, "f", Terms(account_id, "key", "/v1/embeddings", "model", "card", 1))
    await credits.reserve(hold)
    await credits.renew(hold.request_id, account_id, 7, Usage(input=7))
    return hold


async def run_out(link: RedisLink, hold: Hold) -> None:
    await link.command(b"ZADD", SHARD_KEYS[shard_of(hold.terms.account_id)].leases, 0, hold.request_id)


async def test_only_holds_whose_lease_ran_out_are_ended(credits: Credits, link: RedisLink) -> None:
    account_id = str(uuid4())
    over, live = await open_hold(credits, account_id), await open_hold(credits, account_id)
    await run_out(link, over)
    sweeper = Sweeper(credits, nothing_to_load, batch_max=10)
    assert await sweeper.step() == 1
    assert await sweeper.step() == 0
    assert await credits.balance(account_id) == Balance(993, 100)
    assert await credits.renew(live.request_id, account_id, 8, Usage()) is HoldState.OPEN


async def test_two_sweepers_end_a_hold_once(credits: Credits, link: RedisLink) -> None:
    account_id = str(uuid4())
    holds = [await open_hold(credits, account_id) for _ in range(5)]
    for hold in holds:
        await run_out(link, hold)
    sweepers = [Sweeper(credits, nothing_to_load, batch_max=10) for _ in range(2)]
    for sweeper in sweepers:
        await sweeper.step()
    assert await credits.balance(account_id) == Balance(1_000 - 5 * 7, 0)
    assert await link.command(b"XLEN", SHARD_KEYS[shard_of(account_id)].outbox) == 5


async def test_an_unloaded_account_is_loaded_first(credits: Credits, link: RedisLink) -> None:
    account_id = str(uuid4())
    hold = await open_hold(credits, account_id)
    await run_out(link, hold)
    await link.command(b"DEL", SHARD_KEYS[shard_of(account_id)].account(account_id))

    async def load(wanted: str) -> None:
        await credits.load(wanted, 500, 0)

    assert await Sweeper(credits, load, batch_max=10).step() == 1
    assert await credits.balance(account_id) == Balance(493, 0)


async def test_one_bad_hold_keeps_no_other(credits: Credits, link: RedisLink) -> None:
    account_id = str(uuid4())
    bad, good = await open_hold(credits, account_id), await open_hold(credits, account_id)
    await run_out(link, bad)
    await run_out(link, good)
    keys = SHARD_KEYS[shard_of(account_id)]
    await link.command(b"SET", keys.hold(bad.request_id), f"1 open {account_id} 1 f much 0 {{}} {{}}")
    await link.command(b"ZADD", keys.leases, 0, b"lost")
    assert await Sweeper(credits, nothing_to_load, batch_max=10).step() == 1
    assert await link.command(b"ZRANGE", keys.leases, 0, -1) == [bad.request_id.encode()]


async def test_a_hold_of_what_is_no_account_keeps_no_other(desk: Desk) -> None:
    account = await desk.books.account(grant=1_000)
    good = await desk.open_hold(settlement(account.id, 100))
    await run_out(desk.link, good)
    keys, lost = SHARD_KEYS[shard_of(account.id)], str(uuid4())
    await desk.link.command(b"SET", keys.hold(lost), b"1 open nobody 1 f 5 0 {} {}")
    await desk.link.command(b"ZADD", keys.leases, -1, lost)
    assert await Sweeper(desk.credits, desk.recovery.load_account, batch_max=10).step() == 1


async def test_a_cold_shard_waits_and_the_others_do_not(credits: Credits, link: RedisLink) -> None:
    cold_account, warm_account = str(uuid4()), str(uuid4())
    while shard_of(warm_account) == shard_of(cold_account):
        warm_account = str(uuid4())
    cold, warm = await open_hold(credits, cold_account), await open_hold(credits, warm_account)
    await run_out(link, cold)
    await run_out(link, warm)
    credits.adopt(shard_of(cold_account), 2)
    sweeper = Sweeper(credits, nothing_to_load, batch_max=10)
    assert await sweeper.step() == 1
    await credits.rebuild(shard_of(cold_account), 2, 0, 0)
    assert await sweeper.step() == 0
    with pytest.raises(HoldMissing):
        await credits.lapse(shard_of(cold_account), cold.request_id, cold_account)


async def test_redis_away_is_told_to_the_loop(credits: Credits, link: RedisLink) -> None:
    await link.close()
    with pytest.raises(RedisUnavailable):
        await Sweeper(credits, nothing_to_load, batch_max=10).step()
