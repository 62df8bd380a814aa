"""The tables of a report, as rows of text: the terminal and the Markdown page show the same ones. Pure."""

from collections.abc import Sequence

import msgspec

from bench.bars import BARS, verdict
from bench.samples import Report, Spread

NOTHING = "–"


class Table(msgspec.Struct, frozen=True):
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(report: Report) -> list[Table]:
    found = [_cpu(report), _service(report)]
    if "tollgate" in report.samples:
        found += [_behind(report), _bars(report)]
    return found


def _cpu(report: Report) -> Table:
    columns = ("", "µs a call", "× aiohttp", "× nginx", "µs an event", "× aiohttp", "× nginx")
    rows = [
        (
            name,
            number(report.spread(name, "call_cpu_us")),
            _ratio(report, name, "aiohttp", "call_cpu_us"),
            _ratio(report, name, "nginx", "call_cpu_us"),
            number(report.spread(name, "event_cpu_us")),
            _ratio(report, name, "aiohttp", "event_cpu_us"),
            _ratio(report, name, "nginx", "event_cpu_us"),
        )
        for name in report.samples
        if name != "direct"
    ]
    return Table("CPU of the proxying process: median (least–most of the rounds)", columns, rows)


def _service(report: Report) -> Table:
    columns = ("", "calls/s", "added p50 ms", "added p99 ms", "idle RSS MB", "KB a stream")
    metrics = ("calls_per_s", "added_p50_ms", "added_p99_ms", "idle_rss_mb", "stream_kb")
    rows = [(name, *(number(report.spread(name, metric)) for metric in metrics)) for name in report.samples]
    return Table(f"Service: latency at {report.plan.rate_per_s:.0f} calls/s, open loop", columns, rows)


_BEHIND = (
    ("Redis CPU a call, at full load", "redis_cpu_us", "µs"),
    ("Redis CPU a call, at the fixed rate", "redis_scheduled_cpu_us", "µs"),
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


def _bars(report: Report) -> Table:
    rows = []
    for bar in BARS:
        value = bar.value(report)
        cells = (_bound(bar.first), verdict(bar, value, bar.first), _bound(bar.later), verdict(bar, value, bar.later))
        rows.append((bar.label, number(value), bar.unit, *cells))
    return Table("Bars", ("", "measured", "", "bar", "", "later bar", ""), rows)


def _bound(bound: float | None) -> str:
    return "" if bound is None else f"{bound:g}"


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
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"
