"""The breakers' scripts do what their model does (tests/core/fleet.py), whatever gateways tell them."""

import asyncio
import random

import msgspec
import pytest
from redis.asyncio import Redis

from gateway.adapters.redis.breakers import BreakerStore
from gateway.adapters.redis.link import RedisLink, RedisScriptError
from gateway.adapters.redis.scripts import Scripts
from gateway.core.guard.breaker import Breaker, BreakerPolicy, Counts, Signal, State
from gateway.core.guard.shared_breaker import Report, SharedBreaker, Standing
from gateway.resources import shipped
from tests.core.fleet import POLICY, Store

# Buckets so long that a test does not see the next one.
SLOW = msgspec.structs.replace(POLICY, window_ms=36_000_000, bucket_ms=3_600_000)
NOW_MS = 10**9
OPEN = Breaker(state=State.OPEN, version=1, openings=1)
HALF_OPEN = Breaker(state=State.HALF_OPEN, version=2, openings=1)


def store_of(link: RedisLink, policy: BreakerPolicy = SLOW) -> BreakerStore:
    return BreakerStore(link, Scripts(shipped("lua")), policy)


def about(standing: Standing) -> tuple[Breaker, tuple[tuple[int, Counts], ...]]:
    """A standing without its times, which differ between a model and a server."""
    return msgspec.structs.replace(standing.breaker, changed_ms=0, until_ms=0), standing.buckets


@pytest.mark.parametrize("seed", range(20))
async def test_the_scripts_and_their_model_agree(link: RedisLink, seed: int) -> None:
    chance = random.Random(seed)
    real, model = store_of(link), Store(SLOW)
    fleet = [(SharedBreaker(SLOW), SharedBreaker(SLOW)) for _ in range(3)]
    now_ms = NOW_MS
    for _ in range(60):
        now_ms += chance.randrange(4000)
        with_real, with_model = chance.choice(fleet)
        signal, succeeded = chance.choice(list(Signal)), chance.random() < 0.7
        for gateway in (with_real, with_model):
            gateway.record(signal, gateway.begin())
            gateway.judge(now_ms, 0.5)
            gateway.tick(now_ms)
            gateway.probed(succeeded, now_ms, 0.5)
        if chance.random() < 0.1:
            with_real.report(now_ms)
            with_real.miss()
            with_model.report(now_ms)
            with_model.miss()
            continue
        from_real = await real.sync("m", with_real.report(now_ms))
        from_model = model.sync(with_model.report(now_ms), NOW_MS)
        assert about(from_real) == about(from_model)
        # Both learn the model's times, so that they stay alike.
        with_real.adopt(from_model, now_ms, 0.5)
        with_model.adopt(from_model, now_ms, 0.5)


async def test_times_are_told_as_spans_of_redis_own_clock(link: RedisLink) -> None:
    store = store_of(link)
    await store.sync("m", Report(0, OPEN, 700, 5_000, Counts()))

    standing = await store.look("m")

    assert standing is not None
    assert 700 <= standing.age_ms < 3_700
    assert 2_000 < standing.left_ms <= 5_000


async def test_of_two_decisions_from_one_version_the_first_holds(link: RedisLink) -> None:
    store = store_of(link)
    await store.sync("m", Report(0, Breaker(), 0, 0, Counts(ok=1)))
    first, second = await asyncio.gather(
        store.sync("m", Report(0, OPEN, 0, 5_000, Counts())), store.sync("m", Report(0, OPEN, 0, 9_000, Counts()))
    )

    assert first.left_ms <= 5_000
    assert second.left_ms <= 5_000


async def test_no_more_probes_than_the_bound_are_under_way_in_the_fleet(link: RedisLink) -> None:
    store = store_of(link)
    await store.sync("m", Report(2, HALF_OPEN, 0, 0, Counts()))

    leased = await asyncio.gather(*(store.lease_probe("m", 2, f"gateway-{n}", 10_000) for n in range(10)))
    assert sum(leased) == SLOW.probes_max
    assert await store.lease_probe("m", 2, "gateway-0", 10_000), "it has its place already"
    await store.end_probe("m", "gateway-0")
    assert await store.lease_probe("m", 2, "gateway-9", 10_000)
    assert not await store.lease_probe("m", 1, "gateway-1", 10_000), "of another version"


async def test_a_gateway_that_dies_with_its_probe_frees_the_place(link: RedisLink) -> None:
    store = store_of(link)
    await store.sync("m", Report(2, HALF_OPEN, 0, 0, Counts()))
    assert all([await store.lease_probe("m", 2, f"dying-{n}", 1) for n in range(SLOW.probes_max)])
    await asyncio.sleep(0.01)

    assert await store.lease_probe("m", 2, "living", 10_000)


async def test_a_bucket_that_the_window_has_left_is_gone(link: RedisLink) -> None:
    quick = msgspec.structs.replace(POLICY, window_ms=2, bucket_ms=1)
    store = store_of(link, quick)
    await store.sync("m", Report(0, Breaker(), 0, 0, Counts(error=3)))
    await asyncio.sleep(0.01)

    standing = await store.sync("m", Report(0, Breaker(), 0, 0, Counts()))

    assert standing.buckets == ()


async def test_breakers_that_opened_are_found_by_every_gateway(link: RedisLink) -> None:
    store = store_of(link)
    assert await store.opened() == {}
    await store.note({"m": State.OPEN, "n": State.HALF_OPEN})
    assert await store.opened() == {"m": State.OPEN, "n": State.HALF_OPEN}
    assert await store.look("m") is None


async def test_no_key_of_a_breaker_stays_for_ever(link: RedisLink, redis_url: str) -> None:
    store = store_of(link)
    await store.sync("m", Report(0, OPEN, 0, 5_000, Counts()))
    await store.note({"m": State.OPEN})
    async with Redis.from_url(redis_url) as redis:
        assert [await redis.pttl(key) > 0 for key in await redis.keys("tg:*breaker*")] == [True, True]


async def test_a_report_that_is_none_is_refused(link: RedisLink) -> None:
    with pytest.raises(RedisScriptError, match="TOLLGATE"):
        await store_of(link).sync("m", Report(-5, Breaker(), 0, -1, Counts()))
