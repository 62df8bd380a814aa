"""`tollgate shadow …`: what calls would have cost that nobody was charged for."""

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.adapters.postgres.shadow import Compared, Comparison, compare
from gateway.cli.output import AsJson, show, spinner, table
from gateway.cli.target import ConfigFile, Data, on_stores, parsed, target
from gateway.core.money import format_credits
from gateway.core.spans import read_span

if TYPE_CHECKING:
    from gateway.app.stores import Stores

app = typer.Typer(help="Shadow billing: what it measured.", no_args_is_help=True)


@app.command("report")
def report(
    window: Annotated[str, typer.Option(help="How far back: 30m, 24h, 7d.")] = "24h",
    account: Annotated[str | None, typer.Option(help="Only this account, by name or id.")] = None,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many lines, the largest first.")] = 100,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare what was charged with what shadow billing measured, by account and model."""
    span = parsed("--window", read_span, window)

    async def look(stores: "Stores") -> Comparison:
        account_id = None if account is None else (await stores.accounts.find(account)).id
        with spinner("comparing", as_json):
            return await compare(stores.pool, span, account_id, lines_max=count)

    compared = on_stores(target(data, config), look)
    lines, total = compared.lines, compared.total
    columns = ("account", "model", "charged calls", "credits", "shadow calls", "would have cost")
    rows = [_row(each.account, each.model, each) for each in lines] + [_row("all", "", total)]
    part = f": the {len(lines)} largest of {compared.lines_total:,}" if len(lines) < compared.lines_total else ""
    shown = table(f"the last {window}{part}", columns, rows, right=columns[2:]) if lines else "no calls in that time"
    values = {"lines": [_told(each) for each in lines], "lines_total": compared.lines_total, "total": _told(total)}
    show(as_json, values, shown)


def _row(account: str, model: str, line: Compared) -> tuple[object, ...]:
    charged, shadow = format_credits(line.charged), format_credits(line.shadow)
    return account, model, line.charged_calls, charged, line.shadow_calls, shadow


def _told(line: Compared) -> dict[str, Any]:
    """For machines: amounts in µcr, as numbers, and in credits, as decimal strings."""
    values: dict[str, Any] = msgspec.structs.asdict(line)
    for name in ("charged", "shadow"):
        values[f"{name}_ucr"] = values[name]
        values[name] = format_credits(values[name])
    return {name: value for name, value in values.items() if value != ""}
