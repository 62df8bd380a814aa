"""What the phases work with, and how a load is turned into CPU per call."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.loader import Loader
from bench.orders import Outcome
from bench.processes import Children, cpu_s
from bench.samples import Plan, Report
from bench.stores import Stores
from bench.target import Kind, Target
from bench.tollgate import Tollgate

RATE_HEADROOM = 1.3  # an open loop near capacity measures only its own queue


class Cost(msgspec.Struct, frozen=True):
    """CPU per call of one load, in µs; of the stores and the worker only where the target is a Tollgate."""

    calls: int
    calls_per_s: float
    target_us: float
    behind_us: dict[str, float]  # redis, postgres, worker


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """`tollgate` and `stores` are both there, or both not.

    `say` tells what begins; `tick` how far it is, where somebody watches.
    """

    plan: Plan
    report: Report
    loader: Loader
    children: Children
    directory: Path
    upstream: Target
    say: Callable[[str], None]
    tick: Callable[[str], None]
    aiohttp: Target | None = None
    tollgate: Tollgate | None = None
    stores: Stores | None = None

    def stores_of(self, target: Target) -> Stores | None:
        return self.stores if target.kind is Kind.TOLLGATE else None

    def drain(self, target: Target) -> None:
        stores = self.stores_of(target)
        if stores:
            stores.drain()

    def is_right(self, target: Target, load: str, outcome: Outcome) -> bool:
        """Whether all answers were right; if not, say so, and take no figures from this load."""
        self.report.add(target.name, "errors", outcome.errors)
        if outcome.errors:
            self.report.note(f"{target.name}, {load}: {outcome.errors} wrong answers, first: {outcome.complaint}")
        return not outcome.errors

    def sustains(self, target: Target, rate_per_s: float) -> bool:
        capacity = self.report.values(target.name, "calls_per_s")
        return not capacity or min(capacity) >= RATE_HEADROOM * rate_per_s

    def cost(self, target: Target, load: str, run: Callable[[], Outcome]) -> Cost | None:
        """Run a load until all it did is posted; what its calls cost, or None when any was answered wrongly."""
        behind_before = self._behind_cpu_s(target)
        before_s = cpu_s(target.pids)
        outcome = run()
        used_s = cpu_s(target.pids) - before_s
        self.drain(target)
        if not self.is_right(target, load, outcome):
            return None
        us = 1e6 / outcome.calls
        behind = {name: (at_s - behind_before[name]) * us for name, at_s in self._behind_cpu_s(target).items()}
        return Cost(outcome.calls, outcome.calls / outcome.elapsed_s, used_s * us, behind)

    def _behind_cpu_s(self, target: Target) -> dict[str, float]:
        stores = self.stores_of(target)
        if stores is None or self.tollgate is None:
            return {}
        return {
            "redis": stores.redis_cpu_s(),
            "postgres": cpu_s(self.tollgate.postgres_pids()),
            "worker": cpu_s(self.tollgate.worker_pids),
        }
