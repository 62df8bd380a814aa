"""`python -m bench`: measure, show, write."""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import render
from bench.processes import BenchError
from bench.run import run
from bench.samples import QUICK, Plan, Report

HERE = Path(__file__).parent
PLAIN_WIDTH = 150  # of a log, where nothing says how wide it is
OUT, RESULTS = HERE / "out", HERE / "results"


def main(
    quick: Annotated[bool, typer.Option(help="One short round, small numbers: under two minutes.")] = False,
    rounds: Annotated[int | None, typer.Option(min=1, help="Interleaved rounds (3).")] = None,
    rate: Annotated[float | None, typer.Option(min=1, help="Calls a second of the open loop (500).")] = None,
    streams: Annotated[int | None, typer.Option(min=1, help="Measure memory at so many open streams only.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Measure only this target; may be repeated.")] = None,
    peers: Annotated[
        bool, typer.Option(help="Measure installed peers too (python -m bench.peers); a quick run does not.")
    ] = True,
    output: Annotated[Path | None, typer.Option(help="Where report and plots go.")] = None,
    redraw: Annotated[Path | None, typer.Option(help="Measure nothing: show and draw this report.json.")] = None,
    strict: Annotated[bool, typer.Option(help="Exit 1 when a bar is not met or an answer was wrong.")] = False,
) -> None:
    """Measure Tollgate beside its yardsticks, in one run, and print the ratios."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    signal.signal(signal.SIGTERM, lambda *_: raise_interrupt())
    asked = Asked(quick=quick, rounds=rounds, rate_per_s=rate, streams=streams)
    try:
        report = render.read(redraw) if redraw else _measure(asked, console, frozenset(only or ()), peers and not quick)
    except BenchError as error:
        console.print(f"[bold red]bench:[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(2) from error
    directory = output or (redraw.parent if redraw else OUT / "quick" if quick else RESULTS)
    written = render.write(report, directory)
    render.show(report, console)
    drawn = _draw(written)
    console.print(f"Written to {written}" + (f", {', '.join(path.name for path in drawn)}" if drawn else ""))
    if strict and render.failures(report):
        raise typer.Exit(1)


@dataclass(frozen=True)
class Asked:
    """The options that change the plan."""

    quick: bool
    rounds: int | None
    rate_per_s: float | None
    streams: int | None

    def plan(self) -> Plan:
        changes = {
            "rounds": self.rounds,
            "rate_per_s": self.rate_per_s,
            "held_streams": (self.streams,) if self.streams else None,
        }
        plan = QUICK if self.quick else Plan()
        return msgspec.structs.replace(plan, **{name: value for name, value in changes.items() if value is not None})


def _measure(asked: Asked, console: Console, only: frozenset[str], peers: bool) -> Report:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        return run(asked.plan(), OUT, progress, only=only, peers=peers)


def _draw(report_path: Path) -> list[Path]:
    from bench.plots import draw  # here, because importing matplotlib takes longer than some runs need

    return draw(render.read(report_path), report_path.parent)


def raise_interrupt() -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
