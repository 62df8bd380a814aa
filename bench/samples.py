"""What a run has measured: every sample by target and metric, kept raw, so that a reader can draw other conclusions."""

from statistics import median

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """The middle of some samples, and how far they reach: a busy machine shows in the reach."""

    median: float
    low: float
    high: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure. Times are of one phase of one round."""

    rounds: int = 3
    warm_s: float = 0.3
    plain_s: float = 2.0
    connections: int = 32
    events: int = 200
    pace_ms: int = 10
    rate_per_s: float = 500.0
    scheduled_s: float = 3.0
    sweep_per_s: tuple[float, ...] = (250, 500, 1000, 2000)
    sweep_s: float = 2.0
    held_streams: tuple[int, ...] = (250, 500, 1000)
    backlog_calls: int = 20_000


QUICK = Plan(
    rounds=1, plain_s=1.0, events=100, scheduled_s=1.5, sweep_per_s=(), held_streams=(300,), backlog_calls=4_000
)


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    cpu: str
    cores: int
    memory_gb: float
    system: str
    python: str
    busy_percent: float  # of all cores, before anything of ours ran


class Point(msgspec.Struct, frozen=True):
    """One point of a curve: `x` is a rate or a number of streams."""

    x: float
    y: float


Metrics = dict[str, list[float]]
Curves = dict[str, dict[str, list[Point]]]  # curve → target → points


class Report(msgspec.Struct, kw_only=True):
    """All of a run. Metric names carry their unit."""

    started_at: str
    commit: str
    machine: Machine
    plan: Plan
    samples: dict[str, Metrics] = {}
    curves: Curves = {}
    notes: list[str] = []

    def add(self, target: str, metric: str, value: float) -> None:
        self.samples.setdefault(target, {}).setdefault(metric, []).append(value)

    def plot(self, curve: str, target: str, x: float, y: float) -> None:
        self.curves.setdefault(curve, {}).setdefault(target, []).append(Point(x, y))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def values(self, target: str, metric: str) -> list[float]:
        return self.samples.get(target, {}).get(metric, [])

    def spread(self, target: str, metric: str) -> Spread | None:
        return spread(self.values(target, metric))

    def ratio(self, target: str, yardstick: str, metric: str) -> Spread | None:
        """How many times the yardstick's: each round by itself, so that what slows a whole round down cancels out."""
        pairs = zip(self.values(target, metric), self.values(yardstick, metric), strict=False)
        return spread([mine / its for mine, its in pairs if its])


def spread(values: list[float]) -> Spread | None:
    return Spread(median(values), min(values), max(values)) if values else None
