"""The rules of one gateway: how the models do that are marked expensive, and the brownouts that follow from it.

Each gateway judges by its own calls; what it sets holds everywhere, for a time, and says that a rule has set it. What
is reduced already is left to whoever reduced it.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import NamedTuple

import structlog

from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.brownouts import BrownoutDesk
from gateway.core.calls.endings import Ended
from gateway.core.guard.breaker import Signal
from gateway.core.guard.brownout import Level
from gateway.core.guard.brownout_rules import Performance, RulePolicy
from gateway.core.guard.policy import Controls
from gateway.core.guard.signals import model_signal

log = structlog.get_logger(__name__)


class Measure(NamedTuple):
    """What a rule sets."""

    level: Level
    for_ms: int
    shed_percent: int
    output_tokens: int
    reroute_of: Callable[[str], str]


class BrownoutRules:
    def __init__(
        self,
        desk: BrownoutDesk,
        expensive: tuple[str, ...],
        policy: RulePolicy,
        measure: Measure,
        *,
        controls: Callable[[], Controls],
        clock_ms: Callable[[], int],
    ) -> None:
        self._desk = desk
        self._expensive = expensive
        self._policy = policy
        self._measure = measure
        self._controls = controls
        self._clock_ms = clock_ms
        self._watched: dict[str, Performance | None] = {}  # None: it is not expensive

    def ended(self, model: str, ended: Ended) -> None:
        """A call of `model`, as the rate card names it, is over."""
        if not self._expensive:
            return
        if model not in self._watched:
            is_expensive = any(fnmatchcase(model, each) for each in self._expensive)
            self._watched[model] = Performance(self._policy) if is_expensive else None
        performance = self._watched[model]
        signal = model_signal(ended) if performance is not None else Signal.NEUTRAL
        if performance is not None and signal is not Signal.NEUTRAL:
            is_failed = signal is not Signal.OK
            performance.record(self._clock_ms(), is_failed=is_failed, first_byte_ms=ended.first_byte_ms)

    async def step(self) -> int:
        """Reduce what does badly; raises `LedgerUnavailable`."""
        brownouts = self._controls().brownouts
        for model, performance in list(self._watched.items()):  # calls go on ending meanwhile
            finding = None if performance is None else performance.finding(self._clock_ms())
            if finding is None or (brownouts is not None and brownouts.of(model, model) is not None):
                continue
            measure, other = self._measure, self._measure.reroute_of(model)
            level = Level.TRIM if measure.level is Level.REROUTE and not other else measure.level
            made = await self._desk.set(
                model,
                level,
                Signature(f"rule:{finding.kind}", finding.text),
                for_ms=measure.for_ms,
                shed_percent=measure.shed_percent,
                output_tokens=measure.output_tokens,
                reroute_to=other,
                banner="It does badly at its provider",
                unless_set=True,
            )
            if made is not None:
                log.warning("a rule reduces a model", model=model, level=int(level), why=finding.text)
        return 0
