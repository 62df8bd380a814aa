"""Draws a report: CPU per call, throughput per core, latency by load, memory by open streams, and cost by the number of
accounts, of open holds, and of bytes; PNG and SVG each."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from bench.bars import body_points
from bench.fit import fit
from bench.samples import Report, median_points

OURS, OTHERS, CURVES = "#c2410c", "#94a3b8", ("#475569", "#0891b2", "#7c3aed", "#16a34a", "#db2777", "#ca8a04")
SIZE_IN, WIDE_IN = (7.5, 4.2), (11, 4.2)
ADDED_MS_MIN = 0.01  # below it, and below zero, is noise
BESIDE: dict[str, Any] = {"frameon": False, "fontsize": 8, "loc": "upper left", "bbox_to_anchor": (1, 1)}
PLAIN_NUMBERS = StrMethodFormatter("{x:,g}")


def draw(report: Report, directory: Path) -> list[Path]:
    """Write each plot for which there are samples; returns the PNGs."""
    mpl.use("Agg")
    mpl.rcParams |= {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 10,
        "svg.hashsalt": "tollgate",  # the same report gives the same file
    }
    pngs = [_cpu(report, directory), _throughput(report, directory)]
    if "added_p99_ms_by_rate" in report.curves:
        pngs.append(_latency(report, directory))
    if "memory_mb_by_streams" in report.curves:
        pngs.append(_memory(report, directory))
    if "ratio_by_accounts" in report.curves and "ratio_by_open_holds" in report.curves:
        pngs.append(_scale(report, directory))
    return pngs


def _cpu(report: Report, directory: Path) -> Path:
    figure, sides = plt.subplots(1, 3, figsize=WIDE_IN)
    _bars(sides[0], report, "call_cpu_us", "CPU per plain call, µs\nsame head as the last")
    _bars(sides[1], report, "traced_call_cpu_us", "CPU per plain call, µs\nhead not seen before")
    _bars(sides[2], report, "event_cpu_us", "CPU per streamed event, µs\n")
    return _save(figure, directory / "cpu")


def _throughput(report: Report, directory: Path) -> Path:
    figure, axes = plt.subplots(figsize=SIZE_IN)
    _bars(axes, report, "call_cpu_us", "Plain calls a second, per core of the proxying process", per_core=True)
    return _save(figure, directory / "throughput")


def _bars(axes: Axes, report: Report, metric: str, title: str, *, per_core: bool = False) -> None:
    """One bar a target, with the reach of its rounds; logarithmic, since peers differ by orders of magnitude."""
    spreads = {name: report.spread(name, metric) for name in report.samples if name != "direct"}
    shown = [(name, spread) for name, spread in spreads.items() if spread is not None and spread.low > 0]
    for name, spread in shown:
        value, *reach = (1e6 / us if per_core else us for us in (spread.median, spread.low, spread.high))
        reach.sort()
        color = OURS if name == "tollgate" else OTHERS
        axes.barh(name, value, color=color, xerr=[[value - reach[0]], [reach[1] - value]], ecolor="#334155")
        axes.annotate(f"{value:,.0f}", (reach[1], name), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_xscale("log")
    axes.margins(x=0.3)
    axes.set_xlim(left=1)
    axes.xaxis.set_major_formatter(PLAIN_NUMBERS)
    axes.tick_params(axis="x", labelsize=8)
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=10)


def _latency(report: Report, directory: Path) -> Path:
    figure, sides = plt.subplots(1, 2, figsize=WIDE_IN)
    for axes, quantile in zip(sides, ("p50", "p99"), strict=True):
        for index, (name, points) in enumerate(report.curves[f"added_{quantile}_ms_by_rate"].items()):
            x, y = [point.x for point in points], [max(ADDED_MS_MIN, point.y) for point in points]
            axes.plot(x, y, marker="o", label=name, color=_color(name, index))
        axes.set_title(f"Added latency {quantile}, ms", loc="left", fontsize=10)
        axes.set_xlabel("calls a second, open loop")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(PLAIN_NUMBERS)
        axes.yaxis.set_major_formatter(PLAIN_NUMBERS)
    sides[1].legend(**BESIDE)
    return _save(figure, directory / "latency")


def _memory(report: Report, directory: Path) -> Path:
    figure, axes = plt.subplots(figsize=SIZE_IN)
    for index, (name, points) in enumerate(report.curves["memory_mb_by_streams"].items()):
        x, y = [point.x for point in points], [point.y for point in points]
        axes.plot(x, y, marker="o", label=name, color=_color(name, index))
    axes.set_title("Resident memory, MB", loc="left", fontsize=10)
    axes.set_xlabel("open streams")
    axes.xaxis.set_major_formatter(PLAIN_NUMBERS)
    axes.set_ylim(bottom=0)
    axes.legend(**BESIDE)
    return _save(figure, directory / "memory")


def _scale(report: Report, directory: Path) -> Path:
    """What should be flat over six decades, flat, and what should be linear beside its line."""
    figure, sides = plt.subplots(1, 3, figsize=WIDE_IN)
    for axes, what in ((sides[0], "accounts"), (sides[1], "open_holds")):
        curves = report.curves[f"ratio_by_{what}"]
        for index, (series, points) in enumerate(curves.items()):
            middle = median_points(points)
            color = OURS if not index else CURVES[0]
            axes.plot([p.x for p in middle], [p.y for p in middle], marker="o", label=series, color=color)
        axes.set_title("CPU per call, gateway and Redis,\n× aiohttp's bare relay", loc="left", fontsize=10)
        axes.set_xlabel(what.replace("_", " "))
        axes.set_xscale("log")
        axes.set_ylim(0, 1.2 * max(point.y for points in curves.values() for point in points))
        axes.legend(frameon=False, fontsize=8, loc="lower left")
    for index, name in enumerate(report.curves.get("cpu_us_by_body_bytes", {})):
        middle = body_points(report, name)
        color = _color(name, index)
        sides[2].plot([p.x / 1024 for p in middle], [p.y for p in middle], marker="o", label=name, color=color)
        if name == "tollgate" and len(middle) > 2:
            line = fit(middle)
            label = f"{line.base:,.0f} + {line.slope * 1024:,.2f} per KiB"
            x = [2.0**exponent for exponent in range(10, int(middle[-1].x).bit_length())]
            sides[2].plot(
                [at / 1024 for at in x], [line.at(at) for at in x], ":", label=label, color="#1c1917", zorder=3
            )
    sides[2].set_title("CPU per call, µs\n", loc="left", fontsize=10)
    sides[2].set_xlabel("request body, KiB")
    sides[2].set_xscale("log")
    sides[2].set_yscale("log")
    sides[2].yaxis.set_major_formatter(PLAIN_NUMBERS)
    sides[2].legend(**BESIDE)
    for axes in sides:
        axes.xaxis.set_major_formatter(PLAIN_NUMBERS)
    return _save(figure, directory / "scale")


def _color(name: str, index: int) -> str:
    return OURS if name == "tollgate" else CURVES[index % len(CURVES)]


def _save(figure: Figure, stem: Path) -> Path:
    figure.tight_layout()
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(stem.with_suffix(".png"), dpi=160)
    plt.close(figure)
    return stem.with_suffix(".png")
