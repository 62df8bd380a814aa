"""Whatever calls do around midnight and a month's end: every window agrees with a dictionary, and no cap is passed."""

import asyncio
import itertools
from collections.abc import Awaitable
from datetime import datetime
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from gateway.adapters.redis.counters import Charged, Counters, Used
from gateway.adapters.redis.credits import CapsUncounted, Credits, Refused, Reserved
from gateway.adapters.redis.link import RedisLink
from gateway.adapters.redis.scripts import Scripts
from gateway.core.access.callers import Caller
from gateway.core.accounting.posting import Position
from gateway.core.calls.usage import Usage
from gateway.core.guard.caps import Caps, CapsByLevel, Holder, Level, bounds_of, id_of
from gateway.core.guard.windows import opened_ms, windows_at
from gateway.core.holds import Hold, HoldState, Outcome, Settlement, Terms
from gateway.core.ids import uuid7
from gateway.core.shards import SHARD_KEYS, shard_of
from gateway.resources import shipped

ACCOUNT = "00000000-0000-7000-8000-000000000000"
SHARD = shard_of(ACCOUNT)
CALLERS = [Caller(ACCOUNT, key, member_id=member) for key in ("k1", "k2") for member in ("m1", "m2")]

limits = st.none() | st.integers(0, 300)
caps = st.builds(Caps, day=limits, month=limits, concurrent=st.none() | st.integers(0, 5))


class Request(msgspec.Struct):
    """What the model knows of one call."""

    caller: Caller
    hold: Hold
    state: HoldState = HoldState.OPEN
    counts: int = 0  # in its windows, now


class Model(RuleBasedStateMachine):
    url: ClassVar[str]
    zone: ClassVar[str]
    midnight_ms: ClassVar[int]  # that the calls come around

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.link = RedisLink(self.url, command_timeout_ms=5000)
        self.runner.run(self.link.open())
        scripts = Scripts(shipped("lua"))
        self.credits = Credits(self.link, scripts, lease_ms=60_000, refusal_ttl_ms=60_000, tombstone_ttl_ms=60_000)
        self.counters = Counters(self.link, scripts)
        self.requests: list[Request] = []
        self.caps = CapsByLevel()
        self.now_ms = self.midnight_ms - 10
        self.epoch = 1
        self.numbers = itertools.count(1)
        self.runner.run(self._start())

    async def _start(self) -> None:
        await self.link.command(b"FLUSHDB")
        await self.credits.rebuild(SHARD, 1, 0, 0)
        await self.credits.load(ACCOUNT, 10**12, 0)

    def teardown(self) -> None:
        self.runner.run(self.link.close())
        self.runner.close()

    def do(self, act: Awaitable[Any]) -> Any:
        async def acted() -> Any:
            return await act

        return self.runner.run(acted())

    # What the windows must say

    def used(self, level: Level, caller: Caller, at_ms: int) -> tuple[int, int, int]:
        windows = windows_at(at_ms, self.zone)
        own = [each for each in self.requests if id_of(each.caller, level) == id_of(caller, level)]
        in_windows = [
            sum(each.counts for each in own if window.start_ms <= opened_ms(each.hold.request_id) < window.end_ms)
            for window in windows
        ]
        return in_windows[0], in_windows[1], sum(each.state is HoldState.OPEN for each in own)

    def allows(self, caller: Caller, amount: int) -> bool:
        for level, held in zip(Level, self.caps, strict=True):
            day, month, running = self.used(level, caller, self.now_ms)
            if amount and held.day is not None and day + amount > held.day:
                return False
            if amount and held.month is not None and month + amount > held.month:
                return False
            if held.concurrent is not None and running >= held.concurrent:
                return False
        return True

    def count_all(self) -> None:
        """What a gateway does that finds a window uncounted, or sees caps that are new to it."""
        windows = windows_at(self.now_ms, self.zone)
        for level, held in zip(Level, self.caps, strict=True):
            for holder_id in {id_of(caller, level) for caller in CALLERS}:
                charged = Charged(
                    self.epoch,
                    Position(0, 0),
                    None if held.day is None else 0,
                    None if held.month is None else 0,
                )
                self.do(self.counters.count(Holder(ACCOUNT, level.value, holder_id), windows, charged))

    # Rules

    @rule(account=caps, member=caps, key=caps)
    def set_caps(self, account: Caps, member: Caps, key: Caps) -> None:
        for each in [each for each in self.requests if each.state is not HoldState.CAPTURED]:
            self.finish(each, "void", 0)  # those that run on are test_caps' subject
        self.caps = CapsByLevel(account, member, key)
        self.count_all()

    @rule(step_ms=st.sampled_from([1, 5, 20, 86_400_000 - 3, 86_400_000]))
    def wait(self, step_ms: int) -> None:
        self.now_ms += step_ms

    @rule(step_ms=st.integers(1, 15))
    def lag(self, step_ms: int) -> None:
        """The next call comes through a gateway whose clock is behind."""
        self.now_ms -= step_ms

    @rule(caller=st.sampled_from(CALLERS), amount=st.integers(0, 120))
    def reserve(self, caller: Caller, amount: int) -> None:
        bounds = bounds_of(msgspec.structs.replace(caller, time_zone=self.zone), self.caps, self.now_ms)
        terms = Terms(
            ACCOUNT, caller.key_id, "e", "m", "c", self.now_ms, member_id=caller.member_id or "", counted=bounds.counted
        )
        request_id = uuid7(self.now_ms, (next(self.numbers) << 8).to_bytes(10, "big"))
        hold = Hold(request_id, amount, "f", terms, 1, 0, bounds.keys, bounds.lines)
        for _ in range(2):
            try:
                reply = self.do(self.credits.reserve(hold))
                break
            except CapsUncounted:
                self.count_all()
        assert isinstance(reply, Reserved) is self.allows(caller, amount)
        assert type(self.do(self.credits.reserve(hold))) is type(reply)
        if not isinstance(reply, Refused):
            self.requests.append(Request(caller, hold, counts=amount))

    @precondition(lambda self: any(each.state is HoldState.OPEN for each in self.requests))
    @rule(index=st.integers(0, 99), growth=st.integers(1, 120))
    def extend(self, index: int, growth: int) -> None:
        """A call takes more than it began with, in the windows it began in, though it is another day by now."""
        running = [each for each in self.requests if each.state is HoldState.OPEN]
        request = running[index % len(running)]
        grown = msgspec.structs.replace(request.hold, amount=request.hold.amount + growth)
        at_ms = opened_ms(grown.request_id)
        room = [
            limit - used
            for level, held in zip(Level, self.caps, strict=True)
            for limit, used in zip((held.day, held.month), self.used(level, request.caller, at_ms)[:2], strict=True)
            if limit is not None
        ]
        try:
            reply = self.do(self.credits.extend(grown))
        except CapsUncounted:
            return  # of a window that is over, and was counted by nobody since
        assert (reply is None) is (growth <= min(room, default=growth))
        if reply is None:
            assert self.do(self.credits.extend(grown)) is None
            request.hold, request.counts = grown, request.counts + growth

    @precondition(lambda self: any(each.state is not HoldState.CAPTURED for each in self.requests))
    @rule(index=st.integers(0, 99), cost=st.integers(0, 200), how=st.sampled_from(["capture", "void", "lapse"]))
    def end(self, index: int, cost: int, how: str) -> None:
        live = [each for each in self.requests if each.state in (HoldState.OPEN, HoldState.LAPSED)]
        if live:
            self.finish(live[index % len(live)], how, cost)

    def finish(self, request: Request, how: str, cost: int) -> None:
        hold = request.hold
        if how == "lapse":
            if request.state is HoldState.OPEN:
                progress = min(cost, hold.amount)
                self.do(self.credits.renew(hold.request_id, ACCOUNT, progress, Usage()))
                self.do(self.link.command(b"ZADD", SHARD_KEYS[SHARD].leases, 0, hold.request_id))
                self.do(self.credits.lapse(SHARD, hold.request_id, ACCOUNT, hold.terms))
                request.state, request.counts = HoldState.LAPSED, progress
            return
        outcome = Outcome.EXACT if how == "capture" else Outcome.VOID
        charged = cost if how == "capture" else 0
        settlement = Settlement(hold.request_id, hold.terms, outcome, hold.amount, charged, 1)
        for _ in range(2):
            self.do(self.credits.capture(settlement) if how == "capture" else self.credits.void(settlement))
        request.state, request.counts = HoldState.CAPTURED, charged

    @rule()
    def count_anew(self) -> None:
        self.count_all()

    @invariant()
    def counters_are_right(self) -> None:
        windows = windows_at(self.now_ms, self.zone)
        for level, held in zip(Level, self.caps, strict=True):
            for caller in (CALLERS[0], CALLERS[-1]):
                holder = Holder(ACCOUNT, level.value, id_of(caller, level))
                found: Used = self.do(self.counters.used(holder, windows))
                day, month, running = self.used(level, caller, self.now_ms)
                assert held.day is None or found.day in (None, day)
                assert held.month is None or found.month in (None, month)
                assert not held.is_counted or found.open_calls in (None, running)


@pytest.mark.parametrize(
    ("zone", "midnight"),
    [
        ("Europe/Berlin", "2026-04-01T00:00+02:00"),  # a month's end
        ("America/New_York", "2026-11-01T00:00-04:00"),  # and the day of 25 hours
        ("America/Santiago", "2026-09-06T01:00-03:00"),  # a day that begins at one
        ("Asia/Kathmandu", "2027-01-01T00:00+05:45"),
    ],
)
def test_every_window_says_what_its_calls_say(redis_url: str, zone: str, midnight: str) -> None:
    class OnThisServer(Model):
        url = redis_url

    OnThisServer.zone = zone
    OnThisServer.midnight_ms = int(datetime.fromisoformat(midnight).timestamp() * 1000)
    bounds = settings(max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(OnThisServer, settings=bounds)
