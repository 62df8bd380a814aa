"""A hold grows while its call runs: within the bounds that a reserve has, and once however often it is asked."""

import asyncio

import msgspec
import pytest

from gateway.adapters.redis.credits import (
    AccountUnloaded,
    CapsUncounted,
    Credits,
    HoldConflict,
    HoldMissing,
    Refused,
    Reserved,
    Settled,
    ShardRebuilding,
)
from gateway.adapters.redis.link import RedisLink, RedisScriptError
from gateway.core.calls.usage import Usage
from gateway.core.guard.caps import Caps
from gateway.core.holds import Balance, Hold, Outcome, Settlement
from gateway.core.money import AMOUNT_UCR_MAX
from gateway.core.shards import SHARD_KEYS, shard_of
from tests.lua.capped import desk_with
from tests.lua.test_admission import account_with, hold


def grown(held: Hold, amount: int) -> Hold:
    return msgspec.structs.replace(held, amount=amount)


async def opened(credits: Credits, balance: int, amount: int) -> Hold:
    held = hold(await account_with(credits, balance), amount)
    assert isinstance(await credits.reserve(held), Reserved)
    return held


async def test_a_hold_grows_up_to_the_whole_balance_and_not_a_micro_credit_more(credits: Credits) -> None:
    held = await opened(credits, 1_000, 400)
    assert await credits.extend(grown(held, 1_001)) == Refused("balance", 1_001, 1_000)
    assert await credits.extend(grown(held, 1_000)) is None
    assert await credits.balance(held.terms.account_id) == Balance(1_000, 1_000)


async def test_of_100_holds_that_grow_at_once_as_many_do_as_there_is_credit_for(credits: Credits) -> None:
    account_id = await account_with(credits, 100 * 10 + 37 * 50 + 49)
    held = [hold(account_id, 10) for _ in range(100)]
    await asyncio.gather(*map(credits.reserve, held))
    replies = await asyncio.gather(*(credits.extend(grown(each, 60)) for each in held))
    assert replies.count(None) == 37
    assert await credits.balance(account_id) == Balance(2_899, 100 * 10 + 37 * 50)


async def test_what_is_asked_again_or_too_late_takes_nothing(credits: Credits) -> None:
    held = await opened(credits, 1_000, 400)
    for amount in (900, 900, 700, 0):
        assert await credits.extend(grown(held, amount)) is None
    assert await credits.balance(held.terms.account_id) == Balance(1_000, 900)


async def test_an_ended_hold_does_not_grow(credits: Credits) -> None:
    held = await opened(credits, 1_000, 400)
    settled = await credits.capture(Settlement(held.request_id, held.terms, Outcome.EXACT, 400, 100, 1))
    assert isinstance(settled, Settled)
    with pytest.raises(HoldConflict):
        await credits.extend(grown(held, 500))
    assert await credits.balance(held.terms.account_id) == Balance(900, 0)


async def test_a_hold_that_redis_lost_must_be_restored_before_it_grows(credits: Credits) -> None:
    held = await opened(credits, 1_000, 400)
    shard = shard_of(held.terms.account_id)
    await credits.rebuild(shard, 2, 0, 60_000)
    with pytest.raises(HoldMissing):
        await credits.extend(grown(held, 500))
    await credits.load(held.terms.account_id, 1_000, 0)
    await credits.restore(held)
    with pytest.raises(ShardRebuilding):  # other gateways' holds are not registered yet
        await credits.extend(grown(held, 500))


async def test_an_account_that_is_not_loaded_lends_nothing(credits: Credits, link: RedisLink) -> None:
    held = await opened(credits, 1_000, 400)
    await link.command(b"DEL", SHARD_KEYS[shard_of(held.terms.account_id)].account(held.terms.account_id))
    with pytest.raises(AccountUnloaded):
        await credits.extend(grown(held, 500))


async def test_a_hold_of_another_account_is_a_conflict(credits: Credits, link: RedisLink) -> None:
    held = await opened(credits, 1_000, 400)
    keys = SHARD_KEYS[shard_of(held.terms.account_id)]
    line = await link.command(b"GET", keys.hold(held.request_id))
    await link.command(b"SET", keys.hold(held.request_id), line.replace(held.terms.account_id.encode(), b"other", 1))
    with pytest.raises(HoldConflict):
        await credits.extend(grown(held, 500))


@pytest.mark.parametrize("amount", [-1, AMOUNT_UCR_MAX + 1])
async def test_an_amount_beyond_what_lua_compares_is_refused(credits: Credits, amount: int) -> None:
    held = await opened(credits, 1_000, 400)
    with pytest.raises(RedisScriptError):
        await credits.extend(grown(held, amount))


async def test_a_lapse_releases_what_was_grown_and_tells_it(credits: Credits, link: RedisLink) -> None:
    held = await opened(credits, 1_000, 400)
    account_id = held.terms.account_id
    await credits.renew(held.request_id, account_id, 150, Usage(output=15))
    assert await credits.extend(grown(held, 900)) is None
    await link.command(b"ZADD", SHARD_KEYS[shard_of(account_id)].leases, b"XX", 0, held.request_id)
    await credits.lapse(shard_of(account_id), held.request_id, account_id, held.terms)
    assert await credits.balance(account_id) == Balance(850, 0)
    (event,) = await link.command(b"XRANGE", SHARD_KEYS[shard_of(account_id)].outbox, b"-", b"+")
    fields = dict(zip(event[1][::2], event[1][1::2], strict=True))
    assert (fields[b"held"], fields[b"cost"]) == (b"900", b"150")


@pytest.mark.parametrize("level", ["account", "member", "key"])
@pytest.mark.parametrize("window", ["day", "month"])
async def test_growth_counts_toward_each_cap_in_credits(
    credits: Credits, link: RedisLink, level: str, window: str
) -> None:
    desk = await desk_with(credits, link, **{level: msgspec.convert({window: 1_000}, Caps)})
    held = await desk.reserved(400)
    assert await credits.extend(grown(held, 1_001)) == Refused(f"{level}_{window}", 1_001, 1_000)
    assert await credits.extend(grown(held, 1_000)) is None
    assert getattr(await desk.used(level), window) == 1_000
    await desk.capture(held, 300)
    assert getattr(await desk.used(level), window) == 300


async def test_growth_is_all_or_nothing_among_levels(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000), key=Caps(month=500))
    held = await desk.reserved(400)
    assert await credits.extend(grown(held, 600)) == Refused("key_month", 600, 500)
    assert await desk.day() == 400
    assert (await credits.balance(desk.caller.account_id)) == Balance(10**12, 400)


async def test_growth_belongs_to_the_day_that_the_call_began_in(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000))
    held = await desk.reserved(400)
    desk.now_ms += 86_400_000
    assert await credits.extend(grown(held, 900)) is None
    await desk.count()
    assert await desk.day() == 0
    desk.now_ms -= 86_400_000
    assert await desk.day() == 900


async def test_a_cap_that_nobody_counted_is_counted_first(credits: Credits, link: RedisLink) -> None:
    desk = await desk_with(credits, link, account=Caps(day=1_000))
    held = await desk.reserved(400)
    await link.command(b"DEL", held.cap_keys[0])
    with pytest.raises(CapsUncounted):
        await credits.extend(grown(held, 900))
    await desk.count()
    assert await credits.extend(grown(held, 900)) is None
    await link.command(b"DEL", held.cap_keys[0])
    await desk.count()  # from the hold as it has grown
    assert await desk.day() == 900
