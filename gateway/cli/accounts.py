"""`tollgate accounts …`: who pays, what they have, and promotional credit."""

from typing import Annotated, Any

import typer

from gateway.cli.target import AsJson, CommandFailed, ConfigFile, Data, run, show, table, target
from gateway.config import Config
from gateway.core.holds import Balance
from gateway.core.money import InvalidAmount, format_credits, parse_credits

app = typer.Typer(help="Accounts: create, show, grant.", no_args_is_help=True)

AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="An account's name or id.")]


@app.command("create")
def create(name: str, data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Create an account."""

    async def main(settings: Config) -> str:
        from gateway.app import open_stores

        async with open_stores(settings) as stores:
            return (await stores.accounts.create(name)).id

    account_id = run(main(target(data, config)))
    show(as_json, {"account": account_id, "name": name}, f"account {account_id} created for {name}")


@app.command("show")
def show_account(
    account: AccountArgument, data: Data = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Show what an account has: balance, held by running calls, available."""

    async def main(settings: Config) -> dict[str, Any]:
        from gateway.app import open_stores

        async with open_stores(settings) as stores:
            found = await stores.accounts.find(account)
            balance = await stores.live_balance(found.id)
            return {"account": found.id, "name": found.name, "status": found.status} | amounts(balance)

    values = run(main(target(data, config)))
    columns = ("name", "status", "balance", "held", "available")
    rows = [[values[column] for column in columns]]
    show(as_json, values, table(f"account {values['account']}", columns, rows, right=columns[2:]))


@app.command("grant")
def grant(
    account: AccountArgument,
    credits: Annotated[str, typer.Argument(help="Credits, up to six decimals; 1,000 credits are $1.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Give promotional credit; it is in the ledger at once and spendable within a second."""
    try:
        amount = parse_credits(credits)
    except InvalidAmount as error:
        raise CommandFailed(f"CREDITS: {error}") from error

    async def main(settings: Config) -> dict[str, Any]:
        from gateway.app import open_stores

        async with open_stores(settings) as stores:
            found = await stores.accounts.find(account)
            await stores.accounts.grant(found.id, amount, reason)
            await stores.crediter.step()
            return {"account": found.id} | amounts(await stores.live_balance(found.id))

    values = run(main(target(data, config)))
    show(
        as_json,
        values | {"granted": format_credits(amount), "granted_ucr": amount},
        f"granted {format_credits(amount)} credits; {values['available']} available",
    )


def amounts(balance: Balance) -> dict[str, str | int]:
    """The three amounts in credits, as decimal strings, and in µcr."""
    named = {"balance": balance.balance, "held": balance.held, "available": balance.available}
    return {name: format_credits(amount) for name, amount in named.items()} | {
        f"{name}_ucr": amount for name, amount in named.items()
    }
