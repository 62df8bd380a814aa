"""`tollgate accounts …`: who pays, what they have, promotional credit, and how an account is treated."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.adapters.postgres.account_desk import AccountTerms
from gateway.adapters.postgres.accounts import Account
from gateway.cli.operator import BY_COMMAND, Author, Reason, signed
from gateway.cli.output import AsJson, show, table
from gateway.cli.target import CommandFailed, ConfigFile, Data, on_stores, parsed, target
from gateway.core.access.callers import Priority
from gateway.core.holds import Balance
from gateway.core.money import format_credits, parse_credits
from gateway.core.spans import read_span

if TYPE_CHECKING:
    from gateway.app.stores import Stores

app = typer.Typer(help="Accounts: create, list, show, grant, set, top.", no_args_is_help=True)

AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="An account's name or id.")]


class Status(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    IN_REVIEW = "in_review"


class Order(StrEnum):
    SPEND = "spend"


class OnDisconnect(StrEnum):
    DRAIN = "drain"
    CANCEL = "cancel"


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="How commands and statements call it.")],
    reason: Reason = BY_COMMAND,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Create an account."""
    signature = signed(author, reason)

    made = on_stores(target(data, config), lambda stores: stores.accounts.create(name, signature))
    show(as_json, {"account": made.id, "name": name}, f"account {made.id} created for {name}")


@app.command("list")
def list_accounts(
    status: Annotated[Status | None, typer.Option(help="Only those of this status.")] = None,
    after: Annotated[str, typer.Option(help="Only names after this one, to page on.")] = "",
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 100,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List accounts by name, with what the ledger says they have."""
    listed = on_stores(target(data, config), lambda stores: stores.account_desk.page(status, after, count))
    values = [
        {
            "account": each.account_id,
            "name": each.name,
            "status": each.status,
            "plan": each.plan,
            "balance": format_credits(each.balance),
            "balance_ucr": each.balance,
        }
        for each in listed
    ]
    columns = ("name", "status", "plan", "balance")
    rows = [[each[column] for column in columns] for each in values]
    title = f"{len(rows)} account{'s' * (len(rows) != 1)}" + (
        f"; more: --after {rows[-1][0]}" if len(rows) == count else ""
    )
    show(as_json, values, table(title, columns, rows, right=["balance"]) if rows else "no accounts")


@app.command("show")
def show_account(
    account: AccountArgument, data: Data = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Show what an account has: balance, held by running calls, available."""

    async def look(stores: "Stores") -> tuple[Account, Balance]:
        found = await stores.accounts.find(account)
        return found, await stores.live_balance(found.id)

    found, balance = on_stores(target(data, config), look)
    values = _described(found) | amounts(balance)
    columns = ("name", "status", "balance", "held", "available")
    rows = [[values[column] for column in columns]]
    show(as_json, values, table(f"account {values['account']}", columns, rows, right=columns[2:]))


# A negative amount looks like an option; taken as an amount, it is refused with the better message.
@app.command("grant", context_settings={"ignore_unknown_options": True})
def grant(
    account: AccountArgument,
    credits: Annotated[str, typer.Argument(help="Credits, up to six decimals; 1,000 credits are $1.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")],
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Give promotional credit; it is in the ledger at once and spendable within a second."""
    amount = parsed("CREDITS", parse_credits, credits)
    who = signed(author, reason).author

    async def give(stores: "Stores") -> dict[str, Any]:
        found = await stores.accounts.find(account)
        await stores.accounts.grant(found.id, amount, reason, who)
        await stores.crediter.step()
        return {"account": found.id} | amounts(await stores.live_balance(found.id))

    values = on_stores(target(data, config), give)
    show(
        as_json,
        values | {"granted": format_credits(amount), "granted_ucr": amount},
        f"granted {format_credits(amount)} credits; {values['available']} available",
    )


@app.command("set")
def set_account(
    account: AccountArgument,
    status: Annotated[Status | None, typer.Option(help="Only an active account's calls are served.")] = None,
    on_disconnect: Annotated[
        OnDisconnect | None,
        typer.Option(
            help="When a caller leaves mid-answer: read the answer to its end, or close the upstream at once."
        ),
    ] = None,
    plan: Annotated[str | None, typer.Option(help="Whose caps are its defaults.")] = None,
    priority: Annotated[Priority | None, typer.Option(help="Of low priority, it is refused first.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Whose days and months its caps and usage go by.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why; a status needs one. Kept in the audit log.")] = None,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Change how an account is treated; every gateway follows within a second."""
    terms = AccountTerms(plan=plan, priority=priority, time_zone=time_zone, on_disconnect=on_disconnect)
    if status is None and terms == AccountTerms():
        raise CommandFailed("nothing to set; give --status, --on-disconnect, --plan, --priority or --time-zone")
    if status is not None and reason is None:
        raise CommandFailed("--status needs a --reason")
    signature = signed(author, BY_COMMAND if reason is None else reason)

    async def change(stores: "Stores") -> Account:
        found = await stores.accounts.find(account)
        if terms != AccountTerms():
            await stores.account_desk.set_terms(found.id, terms, signature)
        if status is not None:
            await stores.account_desk.set_status(found.id, status, signature)
        return await stores.accounts.find(found.id)

    changed = on_stores(target(data, config), change)
    show(as_json, _described(changed), f"{changed.name}: {changed.status}, on disconnect {changed.on_disconnect}")


@app.command("top")
def top(
    by: Annotated[Order, typer.Option(help="What is compared.")] = Order.SPEND,
    window: Annotated[str, typer.Option(help="How far back: 30m, 24h, 7d.")] = "24h",
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show who uses most: for the daily review."""
    span = parsed("--window", read_span, window)
    spenders = on_stores(target(data, config), lambda stores: stores.account_desk.top(span, count))
    values = [
        {
            "account": each.account_id,
            "name": each.account,
            "status": each.status,
            "spend": format_credits(each.spend),
            "spend_ucr": each.spend,
            "shadow": format_credits(each.uncharged),
            "shadow_ucr": each.uncharged,
            "calls": each.calls,
            "flagged": each.flagged,
        }
        for each in spenders
    ]
    columns = ("name", "status", "spend", "shadow", "calls", "flagged")
    rows = [[each[column] for column in columns] for each in values]
    shown = table(f"by {by.value}, the last {window}", columns, rows, right=columns[2:])
    show(as_json, values, shown if values else "no calls in that time")


def _described(account: Account) -> dict[str, str | int]:
    return {
        "account": account.id,
        "name": account.name,
        "status": account.status,
        "on_disconnect": account.on_disconnect,
        "plan": account.plan,
        "priority": account.priority,
        "time_zone": account.time_zone,
    }


def amounts(balance: Balance) -> dict[str, str | int]:
    """The three amounts in credits, as decimal strings, and in µcr."""
    named = {"balance": balance.balance, "held": balance.held, "available": balance.available}
    return {name: format_credits(amount) for name, amount in named.items()} | {
        f"{name}_ucr": amount for name, amount in named.items()
    }
