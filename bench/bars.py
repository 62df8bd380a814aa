"""The bars that a run is held against: those of the first release, and the later ones of the fast data plane. Pure."""

import msgspec

from bench.samples import Report, Spread


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One promise about Tollgate. `over` is the yardstick of a ratio; without one the metric stands for itself."""

    label: str
    metric: str
    over: str | None = None
    first: float | None = None
    later: float | None = None
    unit: str = ""
    at_least: bool = False

    def value(self, report: Report) -> Spread | None:
        if self.over is None:
            return report.spread("tollgate", self.metric)
        return report.ratio("tollgate", self.over, self.metric)

    def holds(self, value: float, bound: float) -> bool:
        return value >= bound if self.at_least else value <= bound


BARS = (
    Bar(label="CPU per plain call", metric="call_cpu_us", over="aiohttp", first=1.5, later=0.5, unit="× aiohttp"),
    Bar(label="CPU per plain call", metric="call_cpu_us", over="nginx", later=5, unit="× nginx"),
    Bar(label="CPU per streamed event", metric="event_cpu_us", over="aiohttp", first=1.3, later=0.6, unit="× aiohttp"),
    Bar(label="CPU per streamed event", metric="event_cpu_us", over="nginx", later=2, unit="× nginx"),
    Bar(label="Memory, idle (RSS)", metric="idle_rss_mb", first=100, unit="MB"),
    Bar(label="Memory per open stream", metric="stream_kb", first=40, later=20, unit="KB"),
    Bar(label="Ledger rows posted", metric="ledger_rows_per_s", first=10_000, unit="rows/s", at_least=True),
    Bar(label="Posting lag p99 at the fixed rate", metric="lag_p99_ms", first=1000, unit="ms"),
    Bar(label="Added latency p50 at the fixed rate", metric="added_p50_ms", later=0.6, unit="ms"),
    Bar(label="Added latency p99 at the fixed rate", metric="added_p99_ms", later=3, unit="ms"),
    Bar(label="Redis CPU per call", metric="redis_cpu_us", later=50, unit="µs"),
)


def verdict(bar: Bar, value: Spread | None, bound: float | None) -> str:
    """`pass`, `FAIL`, or empty where there is no such bar or nothing was measured."""
    if bound is None or value is None:
        return ""
    return "pass" if bar.holds(value.median, bound) else "FAIL"
