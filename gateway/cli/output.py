"""How a command tells its result, to people and to machines, and meanwhile what it is at."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def show(as_json: bool, values: dict[str, Any] | list[dict[str, Any]], table: Table | str) -> None:
    """Print a result: the values as one JSON line, or the table (or plain text) for people."""
    if as_json:
        print(json.dumps(values))
    elif isinstance(table, str):
        print(table)  # as it stands: a wrapped key could not be copied
    elif not table.row_count:
        print("nothing to list")
    else:
        Console().print(table)


def table(
    title: str,
    columns: Iterable[str],
    rows: Iterable[Iterable[object]],
    right: Iterable[str] = (),
    unfolded: Iterable[str] = (),
) -> Table:
    """`unfolded` columns stay on one line, so that what is in them can be copied."""
    # At least as wide as its title, which would otherwise wrap; together with its columns it should fit 80.
    made = Table(
        title=Text(title), title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False, min_width=len(title)
    )
    aligned_right, on_one_line = set(right), set(unfolded)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in aligned_right else "left"
        made.add_column(column, justify=justify, overflow="fold", no_wrap=column in on_one_line)
    for row in rows:
        # As text: a name or a reason may look like markup.
        made.add_row(*(value if isinstance(value, Text) else Text(str(value)) for value in row))
    return made


def moment(at_ms: int) -> str:
    """A moment for people, in UTC.

    >>> moment(1_795_262_400_000)
    '2026-11-21 12:00:00Z'
    """
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def iso(at: datetime | int | None) -> str | None:
    """A moment (as a number: ms since 1970) for machines.

    >>> iso(1_795_262_400_000)
    '2026-11-21T12:00:00+00:00'
    """
    if isinstance(at, int):
        at = datetime.fromtimestamp(at // 1000, UTC)
    return None if at is None else at.isoformat(timespec="seconds")


@contextmanager
def spinner(doing: str, as_json: bool) -> Iterator[Callable[[str], None]]:
    """Show people on a terminal what is being done; yields what tells how far that is."""
    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
        task = progress.add_task(doing)
        yield lambda part: progress.update(task, description=f"{doing}: {part}")
