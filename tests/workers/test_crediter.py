"""The crediter: each movement reaches Redis once and in order, whatever Redis knows or has forgotten."""

from collections.abc import Sequence

import pytest

from gateway.adapters.redis.link import RedisUnavailable
from gateway.core.calls.usage import Usage
from gateway.core.shards import SHARD_KEYS, shard_of
from tests.books import settlement
from tests.books_redis import Desk


async def redis_balance(desk: Desk, account_id: str) -> int:
    known = await desk.credits.balance(account_id)
    assert known is not None
    return known.balance


async def test_grants_reach_redis_in_order_and_leave_the_queue(desk: Desk) -> None:
    account = await desk.books.account(grant=5)
    await desk.recovery.load_account(account.id)
    for amount in (7, 11):
        await desk.books.accounts.grant(account.id, amount, "more")
    assert await desk.crediter.step() == 3
    assert await redis_balance(desk, account.id) == 23
    assert await desk.credit_outbox.pending(10) == {}
    assert await desk.crediter.step() == 0


async def test_a_grant_to_an_account_that_redis_does_not_have_counts_once(desk: Desk) -> None:
    account = await desk.books.account(grant=5)
    assert await desk.crediter.step() == 1
    assert await redis_balance(desk, account.id) == 5


async def test_delivering_twice_changes_nothing(desk: Desk) -> None:
    account = await desk.books.account(grant=5)
    queued = await desk.credit_outbox.pending(10)
    await desk.crediter.step()
    for movement in queued[account.id]:
        assert await desk.credits.grant(account.id, movement.credit_seq, movement.amount) is False
    assert await redis_balance(desk, account.id) == 5


async def test_a_page_that_starts_in_the_middle_goes_back_to_what_redis_lacks(desk: Desk) -> None:
    account = await desk.books.account()
    await desk.recovery.load_account(account.id)
    for amount in (1, 2, 3):
        await desk.books.accounts.grant(account.id, amount, "gift")
    await desk.books.redis.hset(SHARD_KEYS[shard_of(account.id)].account(account.id), "credit_seq", "1")
    await desk.books.redis.hincrby(SHARD_KEYS[shard_of(account.id)].account(account.id), "balance", 1)
    assert await desk.crediter.step() == 3
    assert await redis_balance(desk, account.id) == 6


async def test_a_movement_that_redis_has_forgotten_leads_to_a_rebuild(desk: Desk) -> None:
    account = await desk.books.account()
    await desk.recovery.load_account(account.id)
    before = await desk.snapshot(account.id)
    await desk.books.accounts.grant(account.id, 5, "gift")
    await desk.crediter.step()
    await desk.roll_back(account.id, before)
    await desk.books.accounts.grant(account.id, 7, "gift")
    assert await desk.crediter.step() == 0
    assert await desk.rebuilder.step() == 1
    assert await desk.crediter.step() == 1
    assert await redis_balance(desk, account.id) == 12


async def test_while_the_shard_is_cold_a_grant_waits_and_others_do_not(desk: Desk) -> None:
    cold, warm = await desk.books.account(), await desk.books.account()
    while shard_of(cold.id) == shard_of(warm.id):
        warm = await desk.books.account()
    await desk.books.accounts.grant(cold.id, 5, "gift")
    await desk.books.accounts.grant(warm.id, 7, "gift")
    await desk.books.redis.delete(SHARD_KEYS[shard_of(cold.id)].shard)
    assert await desk.crediter.step() == 1
    assert await redis_balance(desk, warm.id) == 7
    assert await desk.rebuilder.step() == 1
    assert await desk.crediter.step() == 1
    assert await redis_balance(desk, cold.id) == 5


async def test_an_account_that_redis_cannot_read_keeps_nobody_else_from_their_credit(desk: Desk) -> None:
    unreadable, sound = await desk.books.account(grant=5), await desk.books.account(grant=7)
    await desk.books.redis.set(SHARD_KEYS[shard_of(unreadable.id)].account(unreadable.id), "no hash")
    assert await desk.crediter.step() == 1
    assert await redis_balance(desk, sound.id) == 7
    assert list(await desk.credit_outbox.pending(10)) == [unreadable.id]


async def test_a_redis_that_is_away_is_waited_for(desk: Desk) -> None:
    account = await desk.books.account(grant=5)
    await desk.link.close()
    assert await desk.crediter.step() == 0
    assert list(await desk.credit_outbox.pending(10)) == [account.id]


async def test_what_redis_debited_twice_is_given_back_there(desk: Desk) -> None:
    account = await desk.books.account(grant=1000)
    ended = settlement(account.id, 100)
    await desk.serve(ended)
    await desk.books.redis.delete(SHARD_KEYS[shard_of(account.id)].hold(ended.request_id))
    await desk.serve(ended)
    assert await redis_balance(desk, account.id) == 800
    poster = desk.poster()
    await desk.post_all(poster)
    await poster.close()
    await desk.crediter.step()
    assert await redis_balance(desk, account.id) == await desk.books.balance(account) == 900


class Unheard:
    """Redis goes away whenever it is to be told what Postgres has."""

    async def ack(self, shard: int, position: tuple[int, int], request_ids: Sequence[str]) -> None:
        raise RedisUnavailable("away")


@pytest.mark.parametrize("first", ["capture", "lapse"])
async def test_what_redis_debited_twice_is_given_back_once_however_often_it_is_read(desk: Desk, first: str) -> None:
    account = await desk.books.account(grant=1000)
    call = settlement(account.id, 100)
    keys = SHARD_KEYS[shard_of(account.id)]
    if first == "capture":
        await desk.serve(call)
    else:
        await desk.open_hold(call)
        await desk.credits.renew(call.request_id, account.id, 40, Usage(input=1))
        await desk.link.command(b"ZADD", keys.leases, 0, call.request_id)
        await desk.credits.lapse(shard_of(account.id), call.request_id, account.id, call.terms)
    await desk.books.redis.delete(keys.hold(call.request_id))
    await desk.serve(call)
    poster = desk.poster(told=Unheard())
    for _ in range(4):
        await poster.step()
    await poster.close()
    await desk.crediter.step()
    assert await redis_balance(desk, account.id) == await desk.books.balance(account) == 900
