"""Draws a report: CPU per call, throughput per core, latency by load, memory by open streams; PNG and SVG each."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from bench.samples import Report

OURS, OTHERS, CURVES = "#c2410c", "#94a3b8", ("#475569", "#0891b2", "#7c3aed", "#16a34a", "#db2777", "#ca8a04")
SIZE_IN = (7.5, 4.2)
ADDED_MS_MIN = 0.01  # below it, and below zero, is noise
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
    return pngs


def _cpu(report: Report, directory: Path) -> Path:
    figure, sides = plt.subplots(1, 2, figsize=SIZE_IN)
    _bars(sides[0], report, "call_cpu_us", "CPU per plain call, µs")
    _bars(sides[1], report, "event_cpu_us", "CPU per streamed event, µs")
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
    figure, sides = plt.subplots(1, 2, figsize=SIZE_IN)
    for axes, quantile in zip(sides, ("p50", "p99"), strict=True):
        for index, (name, points) in enumerate(report.curves[f"added_{quantile}_ms_by_rate"].items()):
            x, y = [point.x for point in points], [max(ADDED_MS_MIN, point.y) for point in points]
            axes.plot(x, y, marker="o", label=name, color=_color(name, index))
        axes.set_title(f"Added latency {quantile}, ms", loc="left", fontsize=10)
        axes.set_xlabel("calls a second, open loop")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PLAIN_NUMBERS)
    sides[0].legend(frameon=False, fontsize=8)
    return _save(figure, directory / "latency")


def _memory(report: Report, directory: Path) -> Path:
    figure, axes = plt.subplots(figsize=SIZE_IN)
    for index, (name, points) in enumerate(report.curves["memory_mb_by_streams"].items()):
        x, y = [point.x for point in points], [point.y for point in points]
        axes.plot(x, y, marker="o", label=name, color=_color(name, index))
    axes.set_title("Resident memory, MB", loc="left", fontsize=10)
    axes.set_xlabel("open streams")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return _save(figure, directory / "memory")


def _color(name: str, index: int) -> str:
    return OURS if name == "tollgate" else CURVES[index % len(CURVES)]


def _save(figure: Figure, stem: Path) -> Path:
    figure.tight_layout()
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(stem.with_suffix(".png"), dpi=160)
    plt.close(figure)
    return stem.with_suffix(".png")
