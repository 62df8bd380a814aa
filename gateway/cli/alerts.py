"""`tollgate alerts …`: when an account is warned that its balance comes to an end."""

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.accounts import AccountArgument
from gateway.cli.operator import BY_COMMAND, Author, Reason, signed
from gateway.cli.output import AsJson, show
from gateway.cli.target import CommandFailed, ConfigFile, Data, on_stores, parsed, target
from gateway.core.guard.alerts import Wishes
from gateway.core.money import format_credits, parse_credits

if TYPE_CHECKING:
    from gateway.app.stores import Stores

app = typer.Typer(help="Alerts of low balances: show, set.", no_args_is_help=True)


@app.command("show")
def show_alerts(
    account: AccountArgument, data: Data = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Show when an account is warned."""

    async def look(stores: "Stores") -> Wishes:
        return await stores.alerts.wishes((await stores.accounts.find(account)).id)

    _show(as_json, on_stores(target(data, config), look))


@app.command("set", context_settings={"ignore_unknown_options": True})
def set_alerts(
    account: AccountArgument,
    below: Annotated[str, typer.Option(help="Warn of a balance below so many credits; 0: never.")] = "",
    days: Annotated[int | None, typer.Option(min=0, max=365, help="Or that lasts less than so many days.")] = None,
    reason: Reason = BY_COMMAND,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Say when an account is warned; what is not named stays as it is."""
    amount = parsed("--below", parse_credits, below) if below else None
    if amount is None and days is None:
        raise CommandFailed("nothing to set; give --below or --days")
    if amount is not None and amount < 0:
        raise CommandFailed("--below: must not be negative; 0 is never")

    signature = signed(author, reason)

    async def change(stores: "Stores") -> Wishes:
        return await stores.alerts.set((await stores.accounts.find(account)).id, signature, amount, days)

    _show(as_json, on_stores(target(data, config), change))


def _show(as_json: bool, wishes: Wishes) -> None:
    bounds = [f"{format_credits(wishes.below)} credits"] if wishes.below else []
    bounds += [f"{wishes.days} days of usual use"] if wishes.days else []
    values = {"below": format_credits(wishes.below), "below_ucr": wishes.below, "days": wishes.days}
    show(as_json, values, f"warned below {' or '.join(bounds)}" if bounds else "never warned")
