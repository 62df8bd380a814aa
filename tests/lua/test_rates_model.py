"""Whatever calls come, and when: no level's rate is passed over any span, and who is told a wait is let in after it."""

import asyncio
import itertools
import os
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.adapters.redis.counters import Charged, Counters
from gateway.adapters.redis.credits import Credits, Refused, Reserved
from gateway.adapters.redis.link import RedisLink
from gateway.adapters.redis.scripts import Scripts
from gateway.core.access.callers import Caller
from gateway.core.accounting.posting import Position
from gateway.core.guard.caps import Caps, CapsByLevel, Holder, Level, bounds_of, id_of
from gateway.core.guard.windows import windows_at
from gateway.core.holds import Hold, Terms
from gateway.core.ids import uuid7
from gateway.core.shards import shard_of
from gateway.resources import shipped

ACCOUNT = "00000000-0000-7000-8000-000000000000"
CALLER = Caller(ACCOUNT, "k1", member_id="m1", time_zone="Europe/Berlin")
MONTHS_END_MS = int(datetime.fromisoformat("2026-04-01T00:00+02:00").timestamp() * 1000)
MINUTE_MS = 60_000

limits = st.none() | st.integers(1, 200)
caps = st.builds(Caps, requests_a_minute=limits, tokens_a_minute=limits)
calls = st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 150)), min_size=1, max_size=20)


class Taken(NamedTuple):
    """One call that was let in: between which moments, in ms, and how many tokens."""

    after_ms: float
    before_ms: float
    tokens: int


class Desk:
    """One caller's calls on a Redis whose time is made to pass by dating back what it has stored."""

    def __init__(self, link: RedisLink, caps: CapsByLevel) -> None:
        scripts = Scripts(shipped("lua"))
        self.link = link
        self.caps = caps
        self.credits = Credits(link, scripts, lease_ms=60_000, refusal_ttl_ms=60_000, tombstone_ttl_ms=60_000)
        self.counters = Counters(link, scripts)
        self.skipped_ms = 0

    async def open(self) -> None:
        await self.link.command(b"FLUSHDB")
        await self.credits.rebuild(shard_of(ACCOUNT), 1, 0, 0)
        await self.credits.load(ACCOUNT, 10**12, 0)

    async def now_ms(self) -> float:
        seconds, micros = await self.link.command(b"TIME")
        return int(seconds) * 1000 + int(micros) / 1000 + self.skipped_ms

    async def wait(self, wait_ms: int) -> None:
        self.skipped_ms += wait_ms
        for key in bounds_of(CALLER, self.caps, MONTHS_END_MS).keys:
            for field in (b"requests", b"tokens"):
                if await self.link.command(b"HEXISTS", key, field):
                    await self.link.command(b"HINCRBY", key, field, -wait_ms * 1000)

    async def call(self, tokens: int) -> Taken | Refused:
        opened_ms = MONTHS_END_MS - MINUTE_MS + self.skipped_ms
        bounds = bounds_of(CALLER, self.caps, opened_ms)
        terms = Terms(ACCOUNT, "k1", "e", "m", "c", opened_ms, member_id="m1", counted=bounds.counted)
        hold = Hold(uuid7(opened_ms, os.urandom(10)), 1, "f", terms, 1, tokens, bounds.keys, bounds.lines)
        after_ms = await self.now_ms()
        reply = await self.credits.reserve(hold)
        if isinstance(reply, Refused):
            return reply
        assert isinstance(reply, Reserved)
        return Taken(after_ms, await self.now_ms(), tokens)

    async def count(self) -> None:
        """What a gateway does beside it: counters are counted anew, which must leave the rates alone."""
        windows = windows_at(MONTHS_END_MS + self.skipped_ms, CALLER.time_zone)
        for level in Level:
            holder = Holder(ACCOUNT, level.value, id_of(CALLER, level))
            await self.counters.count(holder, windows, Charged(1, Position(0, 0), 0, 0))


def assert_within(limit: int | None, taken: Sequence[tuple[float, float, int]]) -> None:
    """Over any span: no more than the limit at once and what flows off in that time."""
    for first, last in itertools.combinations_with_replacement(range(len(taken)), 2):
        span_ms = taken[last][1] - taken[first][0]
        units = sum(each[2] for each in taken[first : last + 1])
        assert limit is None or units <= limit * (1 + span_ms / MINUTE_MS) + 0.01


def is_more_than_a_minute_has(caps: CapsByLevel, reply: Refused) -> bool:
    level, _, what = reply.bound.partition("_")
    limit = caps[list(Level).index(Level(level))].tokens_a_minute
    return what == "tokens" and limit is not None and reply.needed > limit


async def played(url: str, caps: CapsByLevel, calls: list[tuple[int, int]]) -> None:
    link = RedisLink(url, command_timeout_ms=5000)
    await link.open()
    desk = Desk(link, caps)
    await desk.open()
    taken: list[Taken] = []
    for wait_ms, tokens in calls:
        await desk.wait(wait_ms)
        reply = await desk.call(tokens)
        if isinstance(reply, Refused):
            never = is_more_than_a_minute_has(caps, reply)
            assert (reply.wait_ms == 0) is never
            await desk.wait(reply.wait_ms)
            again = await desk.call(tokens)
            assert never or isinstance(again, Taken) or again.bound != reply.bound
            reply = again
        if isinstance(reply, Taken):
            taken.append(reply)
        await desk.count()
    await link.close()
    for each in caps:
        assert_within(each.requests_a_minute, [(one.after_ms, one.before_ms, 1) for one in taken])
        assert_within(each.tokens_a_minute, taken)


def test_no_rate_is_passed_around_a_months_end(redis_url: str) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.builds(CapsByLevel, caps, caps, caps), calls)
    def holds(caps: CapsByLevel, calls: list[tuple[int, int]]) -> None:
        asyncio.run(played(redis_url, caps, calls))

    holds()
