"""The rebuilder, beside traffic: whatever happens to Redis, both stores agree in the end."""

import asyncio
import random

import pytest

from gateway.adapters.live_audit import check_redis
from gateway.adapters.postgres.audit import run_audit
from gateway.adapters.recovery import RESTORE_COUNT
from gateway.adapters.redis.credits import AccountUnloaded, CreditsError, HoldMissing, ShardCold
from gateway.core.holds import Hold, Settlement
from gateway.core.shards import SHARD_KEYS, SHARDS, shard_of
from tests.books import settlement
from tests.books_redis import Desk
from tests.patience import PATIENCE_S


async def test_only_the_shards_that_need_it_are_rebuilt(desk: Desk) -> None:
    await desk.books.redis.delete(SHARD_KEYS[3].shard)
    await desk.books.redis.hset(SHARD_KEYS[9].shard, "epoch", "0")
    assert await desk.rebuilder.step() == 2
    assert await desk.rebuilder.step() == 0
    epochs = [state.epoch for state in await desk.books.ledger.shards()]
    assert [shard for shard in range(SHARDS) if epochs[shard] == 2] == [3, 9]
    assert desk.rebuilder.rebuilt_total == SHARDS + 2


async def test_a_shard_behind_its_position_is_rebuilt(desk: Desk) -> None:
    account = await desk.books.account(grant=1000)
    await desk.serve(settlement(account.id, 10))
    before = await desk.snapshot(account.id)
    await desk.serve(settlement(account.id, 10))
    poster = desk.poster()
    await desk.post_all(poster)
    await desk.roll_back(account.id, before)
    assert await desk.rebuilder.step() == 1
    await desk.serve(settlement(account.id, 10))
    await desk.post_all(poster)
    await poster.close()
    assert await desk.books.balance(account) == 970
    assert poster.gaps_total == 0


async def test_a_rebuild_carries_over_more_open_holds_than_it_takes_at_once(desk: Desk) -> None:
    account = await desk.books.account(grant=1_000_000)
    shard = shard_of(account.id)
    open_calls = [settlement(account.id, 10) for _ in range(RESTORE_COUNT + 5)]
    for each in open_calls:
        await desk.open_hold(each)
    lost, *still_open = open_calls
    await desk.books.redis.delete(SHARD_KEYS[shard].hold(lost.request_id))
    await desk.recovery.mark_for_rebuild([shard])
    assert await desk.rebuilder.step() == 1
    balance = await desk.credits.balance(account.id)
    assert balance is not None
    assert balance.held == sum(each.held for each in still_open)
    assert await check_redis(desk.books.pool, desk.link) == ([], [])


async def settle_somehow(desk: Desk, ended: Settlement) -> None:
    """Settle as a gateway does: load, restore and repeat until Redis or Postgres has it."""
    hold = Hold(ended.request_id, ended.held, "f", ended.terms)
    while True:
        try:
            await desk.credits.capture(ended)
        except AccountUnloaded:
            await load_somehow(desk, ended.terms.account_id)
        except HoldMissing:
            if await desk.books.ledger.ended([ended.request_id]):
                return
            try:
                await desk.credits.restore(hold)
            except AccountUnloaded:
                await load_somehow(desk, ended.terms.account_id)
            except ShardCold:
                await asyncio.sleep(0.002)
        except ShardCold:
            await asyncio.sleep(0.002)
        else:
            return


async def load_somehow(desk: Desk, account_id: str) -> None:
    try:
        await desk.recovery.load_account(account_id)
    except ShardCold:
        await asyncio.sleep(0.002)


async def call(desk: Desk, account_id: str, cost: int, settled: list[Settlement]) -> None:
    ended = settlement(account_id, cost)
    while True:
        try:
            await desk.open_hold(ended)
        except CreditsError:
            await asyncio.sleep(0.002)
        else:
            break
    await settle_somehow(desk, ended)
    settled.append(ended)


@pytest.mark.parametrize("seed", range(3))
async def test_traffic_through_rebuilds_is_charged_exactly_once(desk: Desk, seed: int) -> None:
    dice = random.Random(seed)
    accounts = [await desk.books.account(grant=1_000_000) for _ in range(5)]
    settled: list[Settlement] = []
    poster = desk.poster()
    is_over = asyncio.Event()

    async def keep_books() -> None:
        while not is_over.is_set():
            await poster.step()
            await desk.rebuilder.step()
            await desk.crediter.step()

    async def callers() -> None:
        for _ in range(25):
            await call(desk, dice.choice(accounts).id, dice.randint(1, 50), settled)

    keeping = asyncio.create_task(keep_books())
    calling = [asyncio.create_task(callers()) for _ in range(6)]
    while any(not task.done() for task in calling):
        await desk.recovery.mark_for_rebuild([shard_of(dice.choice(accounts).id)])
        await asyncio.wait(calling, timeout=0.05)
    await asyncio.gather(*calling)
    # As gateways do after a rebuild: what Postgres does not have yet is sent again.
    await asyncio.gather(*(settle_somehow(desk, ended) for ended in settled))
    async with asyncio.timeout(PATIENCE_S):
        while await desk.unposted() or await desk.credit_outbox.pending(1):
            await asyncio.sleep(0.01)
    is_over.set()
    await keeping
    await poster.close()
    for account in accounts:
        spent = sum(ended.cost for ended in settled if ended.terms.account_id == account.id)
        assert await desk.books.balance(account) == 1_000_000 - spent
    assert len(settled) == 150
    assert (poster.gaps_total, poster.dead_total) == (0, 0)
    broken = [found for found in await run_audit(desk.books.pool, desk.link) if not found.holds]
    assert [found.name[:3] for found in broken] == ["10."]  # the tests' prices are made up
    await desk.books.require_sound()
