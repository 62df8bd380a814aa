"""The bars that a run is held against. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.fit import fit
from bench.samples import FEW_KEYS, MANY_KEYS, OWNERS, Plan, Point, Report, Spread, median_points

STREAMS, ACCOUNTS, OPEN_HOLDS, BODY_BYTES = 10_000, 1_000_000, 100_000, 4 * 2**20
FLAT = 1.15  # of a cost that is called flat: over its first point
LINEAR_PERCENT = 20.0  # of a cost that is called linear: off the line, at most

Value = Callable[[Report], Spread | None]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One promise about Tollgate. `needs` names what a run must be able to show for it: see `Report.limits`."""

    label: str
    value: Value
    bound: float
    unit: str
    at_least: bool = False
    needs: str = ""

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


def own(metric: str) -> Value:
    return lambda report: report.spread("tollgate", metric)


def over(yardstick: str, metric: str) -> Value:
    return lambda report: report.ratio("tollgate", yardstick, metric)


def growth(curve: str, series: str, first_of: str | None = None) -> Value:
    return lambda report: report.growth(curve, series, first_of)


def off_the_line(report: Report) -> Spread | None:
    points = body_points(report)
    if len(points) < 3:
        return None
    percent = fit(points).deviation * 100
    return Spread(percent, percent, percent)


def body_points(report: Report, target: str = "tollgate") -> list[Point]:
    return median_points(report.curves.get("cpu_us_by_body_bytes", {}).get(target, []))


BARS = (
    Bar(label="CPU per plain call, same head", value=over("aiohttp", "call_cpu_us"), bound=0.5, unit="× aiohttp"),
    Bar(label="CPU per plain call, same head", value=over("nginx", "call_cpu_us"), bound=5, unit="× nginx"),
    Bar(label="CPU per plain call, new head", value=over("aiohttp", "traced_call_cpu_us"), bound=0.5, unit="× aiohttp"),
    Bar(label="CPU per plain call, new head", value=over("nginx", "traced_call_cpu_us"), bound=5, unit="× nginx"),
    Bar(label="CPU per streamed event", value=over("aiohttp", "event_cpu_us"), bound=0.6, unit="× aiohttp"),
    Bar(label="CPU per streamed event", value=over("nginx", "event_cpu_us"), bound=2, unit="× nginx"),
    Bar(label="Added latency p50, fixed rate", value=own("added_p50_ms"), bound=0.6, unit="ms"),
    Bar(label="Added latency p99, fixed rate", value=own("added_p99_ms"), bound=3, unit="ms"),
    Bar(
        label="Open streams on one worker",
        value=own("held_streams"),
        bound=STREAMS,
        unit="",
        at_least=True,
        needs="streams",
    ),
    Bar(label="… of which went wrong", value=own("held_wrong"), bound=0, unit=""),
    Bar(label="… memory for each", value=own("stream_kb"), bound=20, unit="KB"),
    Bar(label="Redis CPU per call, full load", value=own("redis_cpu_us"), bound=50, unit="µs"),
    Bar(label="Redis CPU per call, fixed rate", value=own("redis_scheduled_cpu_us"), bound=50, unit="µs"),
    Bar(
        label="A second worker adds",
        value=own("second_worker_percent"),
        bound=80,
        unit="%",
        at_least=True,
        needs="cores",
    ),
    Bar(label="All guardrails add to a plain call", value=own("guardrails_percent"), bound=15, unit="%"),
    Bar(label="… and Redis scripts to a call", value=own("guardrails_scripts"), bound=0.05, unit=""),
    Bar(
        label="1,000,000 accounts over 10: same 10 keys",
        value=growth("ratio_by_accounts", FEW_KEYS),
        bound=FLAT,
        unit="×",
        needs="accounts",
    ),
    Bar(
        label="1,000,000 accounts over 10: 4,096 keys",
        value=growth("ratio_by_accounts", MANY_KEYS, FEW_KEYS),
        bound=FLAT,
        unit="×",
        needs="accounts",
    ),
    Bar(
        label="100,000 open holds over 1",
        value=growth("ratio_by_open_holds", OWNERS),
        bound=FLAT,
        unit="×",
        needs="open_holds",
    ),
    Bar(
        label="1 KB to 4 MB: off a straight line by",
        value=off_the_line,
        bound=LINEAR_PERCENT,
        unit="%",
        needs="body_bytes",
    ),
    Bar(label="Memory, idle (RSS)", value=own("idle_rss_mb"), bound=100, unit="MB"),
    Bar(label="Ledger rows posted", value=own("ledger_rows_per_s"), bound=10_000, unit="rows/s", at_least=True),
    Bar(label="Posting lag p99, fixed rate", value=own("lag_p99_ms"), bound=1000, unit="ms"),
)


def verdict(bar: Bar, report: Report) -> str:
    """`met`, `NOT MET`, or `not shown` where nothing was measured or the run could not show it."""
    value = bar.value(report)
    if value is None or bar.needs in report.limits:
        return "not shown"
    return "met" if bar.holds(value.median) else "NOT MET"


def limits(plan: Plan) -> dict[str, str]:
    """What a plan is too small to show."""
    wanted = {"accounts": ACCOUNTS, "open_holds": OPEN_HOLDS, "body_bytes": BODY_BYTES}
    largest = {"accounts": max(plan.accounts), "open_holds": max(plan.open_holds), "body_bytes": max(plan.body_bytes)}
    short = {
        name: f"{name.replace('_', ' ')}: this run goes to {largest[name]:,} only"
        for name, number in wanted.items()
        if largest[name] < number
    }
    if max(plan.held_streams) < STREAMS:
        short["streams"] = f"open streams: this run opens {max(plan.held_streams):,} only"
    return short
