"""`tollgate statements …`: an account's month as PDF, CSV or JSON; and closing a month for everybody."""

import sys
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.cli.accounts import AccountArgument
from gateway.cli.output import AsJson, show, spinner
from gateway.cli.target import CommandFailed, ConfigFile, Data, on_stores, target
from gateway.core.accounting.statements import BadMonth, read_month

if TYPE_CHECKING:
    from gateway.adapters.postgres.statements import Told
    from gateway.app.stores import Stores

app = typer.Typer(help="Monthly statements: show one, close a month.", no_args_is_help=True)

Month = Annotated[str, typer.Argument(metavar="YYYY-MM", help="The month, UTC.")]


class Form(StrEnum):
    PDF = "pdf"
    CSV = "csv"
    JSON = "json"


@app.command("show")
def show_statement(
    account: AccountArgument,
    month: Month,
    form: Annotated[Form, typer.Option("--format", help="What to write.")] = Form.CSV,
    out: Annotated[Path | None, typer.Option(help="The file to write; standard output, if not given.")] = None,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Write the statement of a month: final and for ever the same once the month is closed."""
    wanted = _month(month)
    if form is Form.PDF and out is None and sys.stdout.isatty():
        raise CommandFailed("a PDF is not for a terminal; give --out FILE")
    from gateway.web.api.statements import draw

    async def tell(stores: "Stores") -> "Told":
        return await stores.statements.tell((await stores.accounts.find(account)).id, wanted)

    told = on_stores(target(data, config), tell)
    written = msgspec.json.encode(told.statement) if form is Form.JSON else draw(told, form)
    if out is None:
        sys.stdout.buffer.write(written)
        return
    try:
        out.write_bytes(written)
    except OSError as error:
        raise CommandFailed(f"--out {out}: {error.strerror}; name a writable file") from error


@app.command("close")
def close(month: Month, data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Make and keep the statements of a month that is over, of every account that has none yet."""
    wanted = _month(month)

    async def close_all(stores: "Stores") -> int:
        from gateway.workers.bookkeeper import MonthClosing

        if not stores.statements.is_over(wanted):
            raise CommandFailed(f"{month} is not over yet; close it once the next has begun, UTC")
        closing, made = MonthClosing(stores.statements, wanted), 0
        with spinner("closing", as_json) as tell:
            while done := await closing.step():
                made += done
                tell(f"{made:,} statements")
        if await stores.statements.unclosed(wanted, 1):
            raise CommandFailed(f"{made} statements of {month} made; others wait to be sealed: try again soon")
        return made

    made = on_stores(target(data, config), close_all)
    values: dict[str, Any] = {"month": month, "made": made}
    show(as_json, values, f"{made} statements of {month} made")


def _month(text: str) -> date:
    try:
        return read_month(text)
    except BadMonth as error:
        raise CommandFailed(f"{text!r}: {error}") from error
