"""The breakers of one gateway: what its calls ask and tell, and the loop that agrees with the fleet beside them.

A call costs a few look-ups and additions in memory; Redis is spoken to by `step` alone, for all models at once. Callers
are never used to find out whether upstream is back: while a breaker is not closed they are refused, and probes ask.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

import structlog

from gateway.adapters.redis.breakers import BreakerStore
from gateway.adapters.redis.link import RedisScriptError, RedisUnavailable
from gateway.core.calls.calls import Endpoint
from gateway.core.calls.endings import Ended
from gateway.core.errors import ModelUnavailable
from gateway.core.guard.breaker import BreakerPolicy, Signal, State
from gateway.core.guard.shared_breaker import SharedBreaker
from gateway.core.guard.signals import model_signal, upstream_signal
from gateway.proxy.prober import usual_endpoint

log = structlog.get_logger(__name__)

# A call's breaker, and the versions of that and of the upstream's under which it began.
Began = tuple[SharedBreaker, int, int]

_OK = Signal.OK
UPSTREAM = "upstream"  # the breaker of all models together

# A half-open breaker may close within a second or so, or not: this long, and as long again for some callers.
HALF_OPEN_RETRY_S = 2
# Redis is away, or does not take it: either way this gateway decides alone.
SHARED_NOT = (RedisUnavailable, RedisScriptError)
# After a probe that was not answered.
PROBE_REST_MS = 1000


class Prober(Protocol):
    async def model_answers(self, model: str, endpoint: Endpoint) -> bool: ...

    async def upstream_answers(self) -> bool: ...


class Breakers:
    def __init__(
        self,
        store: BreakerStore,
        prober: Prober,
        policy: BreakerPolicy,
        *,
        probe_lease_ms: int,
        gateway_id: str,
        clock_ms: Callable[[], int],
        chance: Callable[[], float],
    ) -> None:
        self._store = store
        self._prober = prober
        self._policy = policy
        self._probe_lease_ms = probe_lease_ms
        self._gateway_id = gateway_id
        self._clock_ms = clock_ms
        self._chance = chance
        self._upstream = SharedBreaker(policy)
        self._shared = {UPSTREAM: self._upstream}
        self._refusing: dict[str, SharedBreaker] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._probing: dict[str, asyncio.Task[None]] = {}
        self._complaint = ""
        self._is_closed = False
        self.probes: Counter[tuple[str, bool]] = Counter()  # by breaker and whether it was answered
        self.openings: Counter[str] = Counter()

    # --- calls ---------------------------------------------------------------------------------------------------

    def check(self, model: str) -> None:
        """Raises `ModelUnavailable` unless the model's breaker, and the upstream's, are closed."""
        if self._refusing and self._policy.enabled:
            for name in (UPSTREAM, model):
                shared = self._refusing.get(name)  # once: a large body is read beside the loop, which may close it now
                if shared is not None:
                    raise self._refusal(shared)

    def begin(self, model: str, endpoint: Endpoint) -> Began:
        """A call goes upstream; returns what `ended` wants to know of that."""
        shared = self._shared.get(model)
        if shared is None:
            shared = self._follow(model)
            self._endpoints[model] = endpoint
        return shared, shared.begin(), self._upstream.begin()

    def ended(self, model: str, ended: Ended, began: Began) -> None:
        """That call is over."""
        shared, version, upstream_version = began
        if ended.status == 200 and not ended.cut and not ended.reading.failed:  # nearly always
            shared.record(_OK, version)
            self._upstream.record(_OK, upstream_version)
        else:
            self._record(model, shared, model_signal(ended), version)
            self._record(UPSTREAM, self._upstream, upstream_signal(ended), upstream_version)

    def states(self) -> Iterator[tuple[str, State]]:
        for name, shared in self._shared.items():
            yield name, shared.breaker.state

    # --- the loop ------------------------------------------------------------------------------------------------

    async def step(self) -> int:
        """Tell the fleet what was counted and decided here, hear what holds, and probe where that is due."""
        if not self._policy.enabled or self._is_closed:
            return 0
        self._finish_probes()
        noted = await self._noted()
        now_ms = self._clock_ms()
        self._forget_idle(now_ms)
        for name, state in noted.items():
            if state is not State.CLOSED and name not in self._shared:
                self._follow(name)
        await asyncio.gather(*(self._sync(name, shared, now_ms) for name, shared in self._shared.items()))
        await self._note(noted)
        self._start_probes()
        return 0

    async def close(self) -> None:
        """Give up the probes that are under way, and begin no more."""
        self._is_closed = True
        for task in self._probing.values():
            task.cancel()
        await asyncio.gather(*self._probing.values(), return_exceptions=True)

    async def _sync(self, name: str, shared: SharedBreaker, now_ms: int) -> None:
        shared.tick(now_ms)
        try:
            standing = await self._store.sync(name, shared.report(now_ms))
        except SHARED_NOT as error:
            self._complain(error)
            shared.miss()
        else:
            shared.adopt(standing, self._clock_ms(), self._chance())
        self._watch(name, shared)

    async def _noted(self) -> dict[str, State]:
        try:
            return await self._store.opened()
        except SHARED_NOT as error:
            self._complain(error)
            return {}

    async def _note(self, noted: dict[str, State]) -> None:
        news = {name: state for name, state in self.states() if noted.get(name, State.CLOSED) is not state}
        if news:
            with suppress(*SHARED_NOT):
                await self._store.note(news)

    # --- probes --------------------------------------------------------------------------------------------------

    def _start_probes(self) -> None:
        for name, shared in self._refusing.items():
            if shared.may_probe and name not in self._probing and not self._is_closed:
                self._probing[name] = asyncio.create_task(self._probe(name, shared), name=f"probe {name}")

    async def _probe(self, name: str, shared: SharedBreaker) -> None:
        token, version = f"{self._gateway_id}-{self._clock_ms()}", shared.breaker.version
        try:
            if not await self._store.lease_probe(name, version, token, self._probe_lease_ms):
                return
        except SHARED_NOT:
            pass  # alone: one at a time
        if name == UPSTREAM:
            answered = await self._prober.upstream_answers()
        else:
            answered = await self._prober.model_answers(name, self._endpoints.get(name) or usual_endpoint(name))
        self.probes[name, answered] += 1
        shared.probed(answered, self._clock_ms(), self._chance())
        self._watch(name, shared)
        with suppress(*SHARED_NOT):
            if answered:
                await self._store.end_probe(name, token)
            else:  # keeps its place until the fleet knows, or others would go on probing
                await self._store.lease_probe(name, version, token, PROBE_REST_MS)

    def _finish_probes(self) -> None:
        """Let go of those that are over; what went wrong with one that nobody foresaw is raised here."""
        for name, task in list(self._probing.items()):
            if task.done():
                del self._probing[name]
                task.result()

    def _complain(self, error: Exception) -> None:
        """Tell the operator, once for each reason. That Redis is away others say."""
        if isinstance(error, RedisScriptError) and str(error) != self._complaint:
            self._complaint = str(error)
            log.error("breakers cannot be shared", error=str(error))

    # --- inside --------------------------------------------------------------------------------------------------

    def _follow(self, name: str) -> SharedBreaker:
        shared = self._shared[name] = SharedBreaker(self._policy)
        return shared

    def _record(self, name: str, shared: SharedBreaker, signal: Signal, version: int) -> None:
        shared.record(signal, version)
        if signal not in (Signal.OK, Signal.NEUTRAL) and self._shared.get(name) is shared:
            shared.judge(self._clock_ms(), self._chance())
            self._watch(name, shared)

    def _watch(self, name: str, shared: SharedBreaker) -> None:
        """Keep the list of those that refuse, and tell the operator of what has changed."""
        was_refusing = name in self._refusing
        if shared.refuses and not was_refusing:
            self._refusing[name] = shared
            self.openings[name] += 1
            log.warning("breaker opened", breaker=name, cause=shared.breaker.cause, openings=shared.breaker.openings)
        elif was_refusing and not shared.refuses:
            del self._refusing[name]
            log.info("breaker closed", breaker=name)

    def _forget_idle(self, now_ms: int) -> None:
        idle = [name for name, each in self._shared.items() if name != UPSTREAM and each.is_idle(now_ms)]
        for name in idle:
            del self._shared[name]

    def _refusal(self, shared: SharedBreaker) -> ModelUnavailable:
        """Each caller is told another time, so that they do not come back all at once."""
        left_s = math.ceil(shared.left_ms(self._clock_ms()) / 1000) or HALF_OPEN_RETRY_S
        return ModelUnavailable(retry_after_s=left_s + int(self._chance() * (left_s + 1)), param="model")
