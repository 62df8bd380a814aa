"""What a run has measured: every sample by target and metric, kept raw, so that a reader can draw other conclusions."""

from statistics import median

import msgspec

# The series of the curves by accounts and by open holds: who calls.
FEW_KEYS, MANY_KEYS, OWNERS = "10 keys call", "up to 4,096 keys call", "owners of the holds call"


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
    held_streams: tuple[int, ...] = (100, 1000, 5000, 10_000)
    held_s: float = 32.0  # for which Tollgate's stay open, all of them: longer than half a lease, so each is renewed
    backlog_calls: int = 20_000
    accounts: tuple[int, ...] = (10, 10_000, 1_000_000)
    open_holds: tuple[int, ...] = (1, 1000, 100_000)
    body_bytes: tuple[int, ...] = (1024, 16_384, 65_536, 262_144, 1_048_576, 4_194_304)
    scale_s: float = 1.0


QUICK = Plan(
    rounds=1,
    plain_s=1.0,
    events=100,
    scheduled_s=1.5,
    sweep_per_s=(),
    held_streams=(300,),
    held_s=0.0,
    backlog_calls=4_000,
    accounts=(10, 1000),
    open_holds=(1, 1000),
    body_bytes=(1024, 65_536, 1_048_576),
    scale_s=0.5,
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
    limits: dict[str, str] = {}  # what this run could not show, and why

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

    def growth(self, curve: str, series: str, first_of: str | None = None) -> Spread | None:
        """The last point of a curve over its first (of another series, where that is named), round by round."""
        first, last = (self.curves.get(curve, {}).get(name, []) for name in (first_of or series, series))
        if not first or not last:
            return None
        low, high = min(point.x for point in first), max(point.x for point in last)
        pairs = zip((p.y for p in last if p.x == high), (p.y for p in first if p.x == low), strict=False)
        return spread([after / before for after, before in pairs])

    def ratio(self, target: str, yardstick: str, metric: str) -> Spread | None:
        """How many times the yardstick's: each round by itself, so that what slows a whole round down cancels out."""
        pairs = zip(self.values(target, metric), self.values(yardstick, metric), strict=False)
        return spread([mine / its for mine, its in pairs if its])


def spread(values: list[float]) -> Spread | None:
    return Spread(median(values), min(values), max(values)) if values else None


def median_points(points: list[Point]) -> list[Point]:
    """One point for each x: the middle of its rounds."""
    return [
        Point(x, median(point.y for point in points if point.x == x)) for x in sorted({point.x for point in points})
    ]
