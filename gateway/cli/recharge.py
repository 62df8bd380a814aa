"""`tollgate recharge …`: automatic recharge of an account's balance, as an operator sets it on its customer's word."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.accounts import AccountArgument
from gateway.cli.operator import BY_COMMAND, Author, Reason, signed
from gateway.cli.output import AsJson, show, table
from gateway.cli.stripe import on_stripe
from gateway.cli.target import CommandFailed, ConfigFile, Data, target
from gateway.core.errors import GatewayError
from gateway.core.money import format_credits, format_dollars

if TYPE_CHECKING:
    from gateway.adapters.postgres.recharges import Recharge, Tried
    from gateway.app.stores import Stores
    from gateway.app.stripe import StripeParts

app = typer.Typer(help="Automatic recharge: show, set, off.", no_args_is_help=True)

SHOWN_ATTEMPTS = 10


@app.command("show")
def show_recharge(
    account: AccountArgument, data: Data = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Show what an account agreed to, where it stands, and the newest attempts."""

    async def look(parts: "StripeParts", stores: "Stores") -> "tuple[Recharge | None, list[Tried]]":
        account_id = (await stores.accounts.find(account)).id
        return await parts.recharges.find(account_id), await parts.recharges.attempts(account_id, SHOWN_ATTEMPTS)

    found, tried = on_stripe(target(data, config), look)
    values = _described(found)
    rows = [
        [
            each.purchase_id,
            f"{each.created_at:%Y-%m-%d %H:%M}",
            format_dollars(each.amount_cents),
            each.state,
            each.answer,
        ]
        for each in tried
    ]
    attempts = [dict(zip(("purchase", "at", "amount", "state", "answer"), row, strict=True)) for row in rows]
    if as_json:
        show(True, {**values, "attempts": attempts}, "")
        return
    show(False, {}, _told(values))
    if rows:
        show(
            False,
            {},
            table("the newest attempts", ["purchase", "at", "amount", "state", "answer"], rows, right=["amount"]),
        )


@app.command("set")
def set_recharge(
    account: AccountArgument,
    below: Annotated[int, typer.Option(help="Credits: below this balance the card is charged.")],
    dollars: Annotated[int, typer.Option(help="How much a charge is, in dollars.")],
    month_dollars: Annotated[int, typer.Option(help="The most that is charged in a calendar month.")],
    reason: Reason = BY_COMMAND,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Turn automatic recharge on; what was paused goes on."""
    signature = signed(author, reason)
    settings = target(data, config)

    async def change(parts: "StripeParts", stores: "Stores") -> "Recharge | None":
        from gateway.web.api.recharge import Wanted, terms_of

        wanted = Wanted(True, below, dollars * 100, month_dollars * 100)
        try:
            terms = terms_of(wanted, parts.packages, is_taxed=settings.stripe.automatic_tax)
        except GatewayError as error:
            raise CommandFailed(error.message) from error
        account_id = (await stores.accounts.find(account)).id
        await parts.recharges.set(account_id, terms, signature)
        return await parts.recharges.find(account_id)

    values = _described(on_stripe(settings, change))
    show(as_json, values, _told(values))


@app.command("off")
def turn_off(
    account: AccountArgument,
    reason: Reason = BY_COMMAND,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Turn automatic recharge off. A charge that is under way still ends."""
    signature = signed(author, reason)

    async def change(parts: "StripeParts", stores: "Stores") -> None:
        await parts.recharges.turn_off((await stores.accounts.find(account)).id, signature)

    on_stripe(target(data, config), change)
    show(as_json, {"on": False}, f"automatic recharge of {account} is off")


def _told(values: dict[str, Any]) -> str:
    if values == {"on": False}:
        return "automatic recharge is off"
    width = max(map(len, values)) + 1
    return "\n".join(f"{name:{width}} {_word(value)}" for name, value in values.items() if value is not None)


def _word(value: Any) -> Any:
    return value if not isinstance(value, bool) else "yes" if value else "no"


def _described(found: "Recharge | None") -> dict[str, Any]:
    if found is None:
        return {"on": False}
    return {
        "on": found.is_on,
        "threshold_credits": format_credits(found.terms.threshold),
        "amount_cents": found.terms.amount_cents,
        "month_cents_max": found.terms.month_cents_max,
        "paused": found.paused or None,
        "card": found.card or None,
        "needs_card": found.is_on and not found.has_card,
        "checkout_url": found.checkout_url or None,
    }
