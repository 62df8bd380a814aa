"""`tollgate audit-log …`: who changed what, and why."""

from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.output import AsJson, show, table
from gateway.cli.target import ConfigFile, Data, on_stores, target

app = typer.Typer(help="The audit log: every operator's change.", no_args_is_help=True)


@app.command("show")
def show_log(
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    before: Annotated[
        int | None, typer.Option(min=1, max=2**63 - 1, help="Only lines before this number, to page on.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Only changes of this: a flag's name, an id.")] = None,
    author: Annotated[str | None, typer.Option(help="Only this author's.")] = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the newest changes. --json has what was before and after."""
    lines = on_stores(
        target(data, config),
        lambda stores: stores.audit_log.page(before_id=before, subject=subject, author=author, count=count),
    )
    rows = [
        (each.id, each.at.strftime("%m-%d %H:%M:%S"), each.author, each.action, each.subject, each.reason)
        for each in lines
    ]
    columns = ("no", "at (UTC)", "by", "action", "subject", "why")
    values: list[dict[str, Any]] = msgspec.to_builtins(lines)
    show(as_json, values, table("audit log", columns, rows, right=("no",)) if lines else "nothing was changed yet")
