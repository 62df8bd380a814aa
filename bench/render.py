"""Shows a report: on the terminal, as a page of Markdown, and as the JSON from which both can be made again."""

from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from bench.bars import BARS, verdict
from bench.samples import Report
from bench.tables import Table, tables

_STYLES = {"met": "green", "NOT MET": "bold red", "not shown": "yellow"}


def show(report: Report, console: Console) -> None:
    for table in tables(report):
        console.print(_rich(table))
    for note in report.notes:
        console.print(f"[yellow]Note:[/] {escape(note)}", highlight=False)


def write(report: Report, directory: Path) -> Path:
    """Write `report.json` and `report.md`; returns the JSON's path."""
    directory.mkdir(parents=True, exist_ok=True)
    json_path = directory / "report.json"
    json_path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    (directory / "report.md").write_text(markdown(report))
    return json_path


def read(path: Path) -> Report:
    return msgspec.json.decode(path.read_bytes(), type=Report)


def markdown(report: Report) -> str:
    machine, plan = report.machine, report.plan
    lines = [
        f"# Bench of {report.started_at[:10]}",
        "",
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gb:.0f} GB, {machine.system}, Python {machine.python}; "
        f"{machine.busy_percent:.0f} % busy with other work before the run. Commit {report.commit}. "
        f"Rounds: {plan.rounds}, interleaved.",
    ]
    for table in tables(report):
        lines += ["", f"## {table.title}", "", _row(table.columns), _row(("---",) * len(table.columns))]
        lines += [_row(row) for row in table.rows]
    if report.notes:
        lines += ["", "## Notes", "", *(f"- {note}" for note in report.notes)]
    return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=table.title, title_justify="left")
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if index else "left", overflow="fold", no_wrap=not index)
    for row in table.rows:
        shown.add_row(*(f"[{_STYLES[cell]}]{cell}[/]" if cell in _STYLES else cell for cell in row))
    return shown


def failures(report: Report) -> list[str]:
    """The bars that do not hold, and the targets that answered wrongly."""
    failed = [bar.label for bar in BARS if verdict(bar, report) == "NOT MET"]
    return failed + [name for name in report.samples if sum(report.values(name, "errors"))]
