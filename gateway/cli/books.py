"""`tollgate books …`: the journal for an accountant, what OpenAI cost, and an operator's corrections."""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from gateway.cli.accounts import AccountArgument
from gateway.cli.operator import Author, signed
from gateway.cli.output import AsJson, show, table
from gateway.cli.target import CommandFailed, ConfigFile, Data, on_stores, parsed, target
from gateway.config import Config
from gateway.core.accounting.books import LAYOUTS
from gateway.core.accounting.ledger import TransferKind
from gateway.core.money import MicroCredits, format_credits, parse_credits

if TYPE_CHECKING:
    from gateway.adapters.postgres.books import Books
    from gateway.adapters.postgres.books import Progress as OnDay
    from gateway.app.stores import Stores

app = typer.Typer(help="The books: export, costs, bills, corrections.", no_args_is_help=True)

From = Annotated[str, typer.Option("--from", metavar="YYYY-MM-DD", help="The first day, UTC.")]
To = Annotated[str, typer.Option("--to", metavar="YYYY-MM-DD", help="The last day, UTC.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the ledger.")]


class Format(StrEnum):
    CSV = "csv"
    BEANCOUNT = "beancount"
    QUICKBOOKS = "quickbooks"
    XERO = "xero"
    LINES = "lines"


class Correction(StrEnum):
    ADJUSTMENT = "adjustment"
    EXPIRY = "expiry"
    WRITE_OFF = "write_off"


def day_of(option: str, text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError as error:
        raise CommandFailed(f"{option}: {text!r} is not a day; write it like 2026-11-21") from error


def period(first: str, last: str) -> tuple[date, date]:
    start, end = day_of("--from", first), day_of("--to", last)
    if start > end:
        raise CommandFailed(f"--from {start} is after --to {end}")
    return start, end


@app.command("export")
def export(
    first: From,
    last: To,
    layout: Annotated[
        Format,
        typer.Option("--format", help="The daily journal by kind and account, or every line of the ledger (`lines`)."),
    ] = Format.CSV,
    out: Annotated[Path | None, typer.Option(help="The file to write; standard output, if not given.")] = None,
    data: Data = None,
    config: ConfigFile = None,
) -> None:
    """Write the journal of some days, by the time they were recorded. A day that is over never changes.

    QuickBooks takes 1,000 lines a file and Xero 300: a week or two. Exports of two periods are as one of both.
    """
    start, end = period(first, last)

    async def main(settings: Config) -> None:
        from gateway.adapters.postgres.books import Books
        from gateway.app.stores import open_reading

        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("exporting", total=(end - start).days + 1)
            async with open_reading(settings) as pool:
                pieces = _pieces(Books(pool), layout, start, end, lambda done: progress.update(task, completed=done))
                await _write(pieces, out)

    asyncio.run(main(target(data, config)))


def _pieces(books: "Books", layout: Format, start: date, end: date, on_day: "OnDay") -> AsyncIterator[str]:
    if layout is Format.LINES:
        return books.lines(start, end, on_day=on_day)
    return books.export(LAYOUTS[layout](), start, end, on_day=on_day)


async def _write(pieces: AsyncIterator[str], out: Path | None) -> None:
    """To standard output; or to a file that has its name only once it is whole."""
    if out is None:
        await _copy(pieces, sys.stdout)
        return
    part = out.with_name(f"{out.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            await _copy(pieces, file)
        part.replace(out)
    except OSError as error:
        raise CommandFailed(f"--out {out}: {error.strerror}; name a writable file") from error


async def _copy(pieces: AsyncIterator[str], file: IO[str]) -> None:
    async for piece in pieces:
        file.write(piece)


@app.command("costs")
def costs(first: From, last: To, data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show by model what was charged, what it costs at OpenAI's prices, and the margin."""
    start, end = period(first, last)

    found = on_stores(target(data, config), lambda stores: stores.provider_costs.of_days(start, end))
    values = [
        {
            "model": each.model,
            "calls": each.calls,
            "charged": format_credits(each.charged),
            "charged_ucr": each.charged,
            "cost": format_credits(each.cost),
            "cost_ucr": each.cost,
            "margin_percent": each.margin_percent,
        }
        for each in found
    ]
    columns = ("model", "calls", "charged", "cost", "margin_percent")
    rows = [["" if each[name] is None else each[name] for name in columns] for each in values]
    shown_columns = ["model", "calls", "charged", "cost", "margin %"]
    shown = table(f"{start} to {end}, in credits", shown_columns, rows, right=shown_columns[1:])
    show(as_json, values, shown)


@app.command("bill")
def bill(
    first: From,
    last: To,
    dollars: Annotated[
        str,
        typer.Argument(
            metavar="[USD]", help="What OpenAI asks for these days, before tax; its costs API says so, if not given."
        ),
    ] = "",
    source: Annotated[str, typer.Option(help="The number of the invoice.")] = "",
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Book OpenAI's invoice, or what its costs API tells: what they differ from the costs that are booked.

    Repeated, it changes nothing.
    """
    start, end = period(first, last)
    if bool(dollars) != bool(source):
        raise CommandFailed("USD and --source belong together; without both, OpenAI's costs API is asked")
    # Parsed as credits, of which a dollar is a thousand.
    asked = parsed("USD", parse_credits, dollars) * 1000 if dollars else None
    if asked is not None and asked < 0:
        raise CommandFailed("USD: a bill is 0 or more")

    settings = target(data, config)
    amount = asyncio.run(_costs_of(settings, start, end)) if asked is None else asked
    named = source or "OpenAI's costs API"
    difference = on_stores(settings, lambda stores: stores.provider_costs.correct(start, end, amount, named))
    values = {"amount_ucr": amount, "difference_ucr": difference}
    show(as_json, values, f"booked {format_credits(difference)} credits beyond what the books had")


async def _costs_of(settings: Config, start: date, end: date) -> MicroCredits:
    """What OpenAI's costs API tells of these days."""
    from gateway.adapters.openai.reports import ReportsUnavailable
    from gateway.app.reconcile import openai_reports

    if not settings.openai_admin_key:
        raise CommandFailed("OPENAI_ADMIN_KEY is not set; give USD and --source, or the key that reads costs")
    try:
        return await openai_reports(settings).cost(start, end)
    except ReportsUnavailable as error:
        raise CommandFailed(str(error)) from error


# A negative amount looks like an option.
@app.command("correct", context_settings={"ignore_unknown_options": True})
def correct(
    account: AccountArgument,
    kind: Annotated[Correction, typer.Argument(help="What kind of movement.")],
    credits: Annotated[str, typer.Argument(help="Credits; an adjustment may be negative.")],
    reason: Reason,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Adjust what an account was charged, let credit expire, or write its debt off.

    Beyond what one operator may correct within a day, it waits for a second one: `tollgate corrections`.
    """
    amount = parsed("CREDITS", parse_credits, credits)

    async def ask(stores: "Stores") -> dict[str, Any]:
        found = await stores.accounts.find(account)
        asked = await stores.corrections.ask(TransferKind(kind), found.id, amount, signed(author, reason))
        await stores.crediter.step()
        balance = (await stores.accounts.balance(found.id)).total
        amounts = {"balance": format_credits(balance), "balance_ucr": balance}
        return {"account": found.id, "correction": asked.id, "state": asked.state} | amounts

    values = on_stores(target(data, config), ask)
    done = f"booked; the balance is {values['balance']}"
    waits = f"waits for a second person:\ntollgate corrections approve {values['correction']}"
    said = done if values["state"] == "posted" else waits
    show(as_json, values, f"{kind} of {format_credits(amount)} credits {said}")
