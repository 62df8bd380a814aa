"""The tables of a report, as rows of text: the terminal and the Markdown page show the same ones. Pure."""

from collections.abc import Sequence

import msgspec

from bench.bars import BARS, body_points, verdict
from bench.fit import fit
from bench.samples import Point, Report, Spread, spread

NOTHING = "–"


class Table(msgspec.Struct, frozen=True):
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(report: Report) -> list[Table]:
    found = [_cpu(report), _service(report)]
    if "tollgate" in report.samples:
        found += [_behind(report), _workers(report), _guardrails(report), *_scale(report), _bars(report)]
    return [table for table in found if table.rows]


def _cpu(report: Report) -> Table:
    columns = ("", "", "µs", "× aiohttp", "× nginx")
    rows = [
        (
            label if first else "",
            name,
            number(report.spread(name, metric)),
            _ratio(report, name, "aiohttp", metric),
            _ratio(report, name, "nginx", metric),
        )
        for label, metric in _CPU
        for first, name in _marked([name for name in report.samples if report.spread(name, metric)])
    ]
    return Table("CPU of the proxying process: median (least–most of the rounds)", columns, rows)


_CPU = (
    ("plain call, the same head as the last", "call_cpu_us"),
    ("plain call, a head not seen before", "traced_call_cpu_us"),
    ("streamed event", "event_cpu_us"),
)


def _marked(names: list[str]) -> list[tuple[bool, str]]:
    """With whether it is the first."""
    return [(not index, name) for index, name in enumerate(names)]


def _service(report: Report) -> Table:
    columns = ("", "calls/s", "added p50 ms", "added p99 ms", "idle RSS MB", "KB a stream")
    metrics = ("calls_per_s", "added_p50_ms", "added_p99_ms", "idle_rss_mb", "stream_kb")
    rows = [(name, *(number(report.spread(name, metric)) for metric in metrics)) for name in report.samples]
    return Table(f"Service: latency at {report.plan.rate_per_s:.0f} calls/s, open loop", columns, rows)


_BEHIND = (
    ("Redis CPU a call, at full load", "redis_cpu_us", "µs"),
    ("Redis CPU a call, at the fixed rate", "redis_scheduled_cpu_us", "µs"),
    ("Redis CPU a second, at rest", "redis_rest_ms_per_s", "ms"),
    ("Gateway CPU a call, at the fixed rate", "scheduled_cpu_us", "µs"),
    ("Worker CPU a call", "worker_cpu_us", "µs"),
    ("Postgres CPU a call", "postgres_cpu_us", "µs"),
    ("Ledger rows posted from a backlog", "ledger_rows_per_s", "rows/s"),
    ("Calls posted from a backlog", "ledger_calls_per_s", "calls/s"),
    ("Posting lag p50, at the fixed rate", "lag_p50_ms", "ms"),
    ("Posting lag p99, at the fixed rate", "lag_p99_ms", "ms"),
    ("Idle memory, proportional (PSS)", "idle_pss_mb", "MB"),
)


def _behind(report: Report) -> Table:
    rows = [(label, number(report.spread("tollgate", metric)), unit) for label, metric, unit in _BEHIND]
    return Table("Behind Tollgate's gateway process", ("", "", ""), rows)


def _workers(report: Report) -> Table:
    rows = [
        (
            f"{label} gateway process{plural}",
            number(report.spread("tollgate", f"workers_{name}_calls_per_s")),
            number(report.spread("tollgate", f"workers_{name}_cpu_us")),
            number(report.spread("tollgate", f"workers_{name}_redis_us")),
        )
        for label, name, plural in (("One", "one", ""), ("Two", "two", "es"))
        if report.spread("tollgate", f"workers_{name}_cpu_us")
    ]
    columns = ("", "calls/s here", "gateway µs a call", "Redis µs a call")
    return Table(f"A second worker, on {report.machine.cores} cores for everything", columns, rows)


def _guardrails(report: Report) -> Table:
    rows = [
        (
            label,
            *(number(report.spread("tollgate", f"{name}_{metric}")) for metric in ("cpu_us", "redis_us", "scripts")),
        )
        for label, name in (("none", "bare"), ("all of them", "guarded"))
        if report.spread("tollgate", f"{name}_cpu_us")
    ]
    return Table("Guardrails", ("", "gateway µs a call", "Redis µs a call", "Redis scripts a call"), rows)


def _scale(report: Report) -> list[Table]:
    columns = ("", "gateway µs a call", "Redis µs a call", "both, × aiohttp")
    found = [
        Table(f"Cost of a plain call by {what.replace('_', ' ')}", columns, _growing(report, what))
        for what in ("accounts", "open_holds")
    ]
    curves = report.curves.get("cpu_us_by_body_bytes", {})
    rows = []
    for name in curves:
        points = body_points(report, name)
        line = f"{fit(points).base:.0f} + {fit(points).slope * 2**20:,.0f} a MiB" if len(points) > 2 else NOTHING
        off = f"{fit(points).deviation:.0%}" if len(points) > 2 else NOTHING
        rows.append((name, *(_figure(point.y) for point in points), line, off))
    sizes = tuple(f"{size / 1024:,.0f} KiB" for size in report.plan.body_bytes)
    return [*found, Table("CPU by the request's body, µs a call", ("", *sizes, "line", "off by"), rows)]


def _growing(report: Report, what: str) -> list[tuple[str, ...]]:
    curves = [report.curves.get(f"{part}_by_{what}", {}) for part in ("gateway_us", "redis_us", "ratio")]
    return [
        (f"{x:,.0f} {what.replace('_', ' ')}, {series}", *(number(_at(curve[series], x)) for curve in curves))
        for series in curves[0]
        for x in sorted({point.x for point in curves[0][series]})
    ]


def _at(points: list[Point], x: float) -> Spread | None:
    return spread([point.y for point in points if point.x == x])


def _bars(report: Report) -> Table:
    rows = []
    for bar in BARS:
        value = bar.value(report)
        bound = f"{'≥' if bar.at_least else '≤'} {bar.bound:,g}"
        rows.append((bar.label, number(value), bar.unit, bound, verdict(bar, report)))
    return Table("Bars", ("", "measured", "", "bar", ""), rows)


def _ratio(report: Report, name: str, yardstick: str, metric: str) -> str:
    return number(report.ratio(name, yardstick, metric)) if name != yardstick else "1"


def number(value: Spread | None) -> str:
    """`12.3 (11.9–12.8)`; only the figure itself when there was one round."""
    if value is None:
        return NOTHING
    middle = _figure(value.median)
    return middle if value.low == value.high else f"{middle} ({_figure(value.low)}–{_figure(value.high)})"


def _figure(value: float) -> str:
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"
