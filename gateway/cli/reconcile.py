"""`tollgate reconcile`: a day's books beside Stripe, OpenAI and Redis; and what earlier reconciliations found."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.cli.books import day_of
from gateway.cli.output import AsJson, spinner, table
from gateway.cli.target import CommandFailed, ConfigFile, Data, target
from gateway.config import Config
from gateway.core.accounting.reconciliation import Check, Report, Verdict, figure, unit_in_words
from gateway.core.money import format_credits
from gateway.core.pricing.provider_costs import ModelCost

app = typer.Typer()

EXIT_MISMATCH, EXIT_NOT_CHECKED = 1, 2
STYLES = {Verdict.OK: "green", Verdict.MISMATCH: "red", Verdict.NOT_CHECKED: "yellow"}

Day = Annotated[str, typer.Option("--day", metavar="YYYY-MM-DD", help="The day, UTC; yesterday, if not given.")]


@app.callback(invoke_without_command=True)
def reconcile(
    context: typer.Context, day: Day = "", data: Data = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Compare a day's books with Stripe, OpenAI and Redis.

    Exit 0: all agree; 1: a mismatch; 2: not all could be asked. The report of a day that is over is kept.
    """
    if context.invoked_subcommand is None:
        with _not_checked():
            report = asyncio.run(_reconcile(target(data, config), day, as_json))
        _tell(report, as_json)


@app.command("show")
def show_report(
    day: Annotated[
        str, typer.Option("--day", metavar="YYYY-MM-DD", help="The day, UTC; the newest, if not given.")
    ] = "",
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a report that was kept, and exit as the reconciliation did."""

    async def main(settings: Config) -> Report:
        from gateway.adapters.postgres.reconciliation import Reports
        from gateway.app.stores import open_reading

        async with open_reading(settings) as pool:
            kept = await Reports(pool).newest(day_of("--day", day) if day else None)
        if kept is None:
            raise CommandFailed(f"no report of {day} is kept" if day else "nothing was reconciled yet")
        return kept.report

    with _not_checked():
        report = asyncio.run(main(target(data, config)))
    _tell(report, as_json)


@contextmanager
def _not_checked() -> Iterator[None]:
    """What stands in the way must not exit as a mismatch does."""
    try:
        yield
    except (CommandFailed, LedgerUnavailable) as error:
        typer.echo(f"tollgate: {error}", err=True)
        raise typer.Exit(EXIT_NOT_CHECKED) from error


async def _reconcile(settings: Config, day: str, as_json: bool) -> Report:
    from gateway.adapters.postgres.reconciliation import Reports
    from gateway.app.reconcile import open_reconciliation
    from gateway.app.sources import now
    from gateway.app.stores import open_stores

    today = now().date()
    chosen = day_of("--day", day) if day else today - timedelta(days=1)
    if chosen > today:
        raise CommandFailed(f"--day: {chosen} has not begun")
    with spinner("comparing", as_json) as tell:
        async with open_stores(settings) as stores, open_reconciliation(settings, stores) as reconciliation:
            report = await reconciliation.of(chosen, tell)
            if report.is_over:
                await Reports(stores.pool).keep(report)
    return report


def _tell(report: Report, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_values(report)))
    else:
        _print(report)
    if report.mismatches:
        raise typer.Exit(EXIT_MISMATCH)
    if report.outages:
        raise typer.Exit(EXIT_NOT_CHECKED)


def _values(report: Report) -> dict[str, Any]:
    return {
        "day": str(report.day),
        "is_over": report.is_over,
        "agrees": not report.mismatches,
        "is_whole": not report.outages,
        "checks": [
            msgspec.to_builtins(check) | {"difference": check.difference, "share_ppm": check.share_ppm}
            for check in report.checks
        ],
        "margins": [
            {
                "model": each.model,
                "calls": each.calls,
                "charged_ucr": each.charged,
                "cost_ucr": each.cost,
                "margin_percent": each.margin_percent,
            }
            for each in report.margins
        ],
    }


def _print(report: Report) -> None:
    console = Console()
    title = f"{report.day}: {_verdict(report)}"
    rows = [[Text(check.verdict.value, STYLES[check.verdict]), check.name, *_figures(check)] for check in report.checks]
    columns = ["", "check", "expected", "found", "off", "", "share"]
    console.print(table(title, columns, rows, right=["expected", "found", "off", "share"]))
    if not report.is_over:
        console.print("The day is not over: its figures still move, and the report is not kept.", style="yellow")
    for check in report.checks:
        for note in check.notes:
            console.print(Text(f"{check.name}: {note}", STYLES[check.verdict]))
    if report.margins:
        margins = [
            [each.model, f"{each.calls:,}", format_credits(each.charged), format_credits(each.cost), _margin(each)]
            for each in report.margins
        ]
        columns = ["model", "calls", "charged", "cost", "margin %"]
        console.print(table("charged and cost by model, in credits", columns, margins, right=columns[1:]))


def _verdict(report: Report) -> str:
    if report.mismatches:
        return f"the books disagree in {len(report.mismatches)} of {len(report.checks)} checks"
    return "not everybody could be asked" if report.outages else "the books agree with all that was asked"


def _figures(check: Check) -> list[str]:
    if check.verdict is Verdict.NOT_CHECKED:
        return [""] * 5
    share = "" if check.share_ppm is None else f"{check.share_ppm / 10_000:.2f} %"
    figures = [figure(amount, check.unit) for amount in (check.expected, check.found, check.off)]
    return [*figures, unit_in_words(check.unit), share]


def _margin(cost: ModelCost) -> str:
    return "" if cost.margin_percent is None else str(cost.margin_percent)
