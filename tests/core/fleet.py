"""A fleet in virtual time: gateways that share a breaker through a store, before an upstream that does as it is told.

The store is the model of lua/breaker_sync.lua and lua/breaker_probe.lua; tests/lua compares the two.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from gateway.core.guard.breaker import NOTHING, Breaker, BreakerPolicy, Counts, Signal, State
from gateway.core.guard.shared_breaker import Report, SharedBreaker, Standing

POLICY = BreakerPolicy(
    window_ms=10_000,
    bucket_ms=1_000,
    volume_min=20,
    failure_rate=0.5,
    streak=8,
    open_ms=5_000,
    open_ms_max=60_000,
    jitter=0.2,
    probes_max=2,
    successes_to_close=3,
)


class Store:
    """What the fleet agrees on: one breaker, the counters of its version, and the probes that are under way."""

    def __init__(self, policy: BreakerPolicy = POLICY) -> None:
        self._policy = policy
        self.breaker: Breaker | None = None
        self._changed_ms = 0
        self._until_ms = 0
        self._buckets: dict[int, Counts] = {}
        self._probes: dict[str, int] = {}  # token → end of its lease

    def sync(self, report: Report, now_ms: int) -> Standing:
        newest = now_ms // self._policy.bucket_ms
        version = None if self.breaker is None else self.breaker.version
        if version is None or (version == report.base_version and report.breaker.version > version):
            self.breaker = report.breaker
            self._changed_ms, self._until_ms = now_ms - report.age_ms, now_ms + report.left_ms
            self._buckets = {}  # probes that are under way go on
        assert self.breaker is not None
        if self.breaker.version == report.base_version == report.breaker.version and report.counts != NOTHING:
            self._buckets[newest] = self._buckets.get(newest, NOTHING).plus(report.counts)
        oldest = newest - self._policy.buckets
        self._buckets = {number: counts for number, counts in self._buckets.items() if number > oldest}
        return Standing(
            self.breaker,
            now_ms - self._changed_ms,
            max(0, self._until_ms - now_ms),
            tuple(sorted((newest - number, counts) for number, counts in self._buckets.items())),
        )

    def lease_probe(self, version: int, token: str, lease_ms: int, now_ms: int) -> bool:
        self._probes = {each: end for each, end in self._probes.items() if end > now_ms}
        if self.breaker is None or (self.breaker.version, self.breaker.state) != (version, State.HALF_OPEN):
            return False
        if token not in self._probes and len(self._probes) >= self._policy.probes_max:
            return False
        self._probes[token] = now_ms + lease_ms
        return True

    def end_probe(self, token: str) -> None:
        self._probes.pop(token, None)


class Answer(NamedTuple):
    signal: Signal
    took_ms: int


class Change(NamedTuple):
    time_ms: int
    state: State


# What upstream answers to something that reaches it at this time.
Upstream = Callable[[int, random.Random], Answer]


class Simulation:
    """Gateways that take callers' calls at a steady rate, exchange reports with the store, and probe."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        gateways: int = 10,
        calls_per_s: int = 200,
        flush_ms: int = 200,
        delay_ms: tuple[int, int] = (1, 20),
        store_away: Callable[[int], bool] = lambda now_ms: False,
        seed: int = 1,
    ) -> None:
        self._upstream = upstream
        self._chance = random.Random(seed)
        self._flush_ms = flush_ms
        self._delay_ms = delay_ms
        self._store_away = store_away
        self._gap_ms = 1000 / calls_per_s
        self.store = Store()
        self.gateways = [SharedBreaker(POLICY) for _ in range(gateways)]
        self.sent = 0
        self.refused = 0
        self.failed_times_ms: list[int] = []  # of callers' calls that reached upstream and failed
        self.probe_times_ms: list[int] = []
        self.probes_at_once_max = 0
        self.changes: list[Change] = []  # of the store's breaker
        self._probing: dict[int, str] = {}
        self._events: list[tuple[int, int, Callable[[int], None]]] = []
        self._order: Iterator[int] = iter(range(10**9))

    def run(self, duration_ms: int) -> "Simulation":
        for index in range(len(self.gateways)):
            self._at(self._chance.randrange(self._flush_ms), partial(self._flush, index))
        self._at(0, self._call)
        while self._events and self._events[0][0] <= duration_ms:
            now_ms, _, act = heapq.heappop(self._events)
            act(now_ms)
        return self

    def opened_at_ms(self) -> list[int]:
        return [change.time_ms for change in self.changes if change.state is State.OPEN]

    def closed_at_ms(self) -> list[int]:
        return [change.time_ms for change in self.changes if change.state is State.CLOSED]

    def _at(self, time_ms: int, act: Callable[[int], None]) -> None:
        heapq.heappush(self._events, (time_ms, next(self._order), act))

    def _call(self, now_ms: int) -> None:
        self._at(now_ms + max(1, round(self._chance.expovariate(1 / self._gap_ms))), self._call)
        breaker = self._chance.choice(self.gateways)
        if breaker.refuses:
            self.refused += 1
            return
        self.sent += 1
        version = breaker.begin()
        answer = self._upstream(now_ms, self._chance)

        def end(end_ms: int) -> None:
            breaker.record(answer.signal, version)
            if answer.signal not in (Signal.OK, Signal.NEUTRAL):
                self.failed_times_ms.append(end_ms)
                breaker.judge(end_ms, self._chance.random())

        self._at(now_ms + answer.took_ms, end)

    def _flush(self, index: int, now_ms: int) -> None:
        self._at(now_ms + self._flush_ms, partial(self._flush, index))
        breaker = self.gateways[index]
        breaker.tick(now_ms)
        report = breaker.report(now_ms)
        if self._store_away(now_ms):
            breaker.miss()
            if breaker.may_probe:
                self._probe(index, now_ms)
            return
        there, back = self._chance.randint(*self._delay_ms), self._chance.randint(*self._delay_ms)

        def arrive(at_ms: int) -> None:
            standing = self.store.sync(report, at_ms)
            if standing.breaker.state is not (self.changes[-1].state if self.changes else State.CLOSED):
                self.changes.append(Change(at_ms, standing.breaker.state))
            lease = breaker.breaker.version, f"{index}-{at_ms}"
            leased = breaker.may_probe and index not in self._probing
            leased = leased and self.store.lease_probe(*lease, 10_000, at_ms)

            def answer(back_ms: int) -> None:
                breaker.adopt(standing, back_ms, self._chance.random())
                if leased:
                    self._probe(index, back_ms, lease[1])

            self._at(at_ms + back, answer)

        self._at(now_ms + there, arrive)

    def _probe(self, index: int, now_ms: int, token: str = "") -> None:
        if index in self._probing:
            return
        self._probing[index] = token
        self.probe_times_ms.append(now_ms)
        self.probes_at_once_max = max(self.probes_at_once_max, len(self._probing))
        answer = self._upstream(now_ms, self._chance)
        version = self.gateways[index].breaker.version

        def end(end_ms: int) -> None:
            succeeded, token = answer.signal in (Signal.OK, Signal.NEUTRAL), self._probing.pop(index)
            if succeeded:
                self.store.end_probe(token)
            else:
                self.store.lease_probe(version, token, 1_000, end_ms)
            self.gateways[index].probed(succeeded, end_ms, self._chance.random())

        self._at(now_ms + answer.took_ms, end)
