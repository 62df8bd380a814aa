"""`tollgate purchases …` and `tollgate refunds …`: what was bought, and giving money back."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.operator import Author, Reason, signed
from gateway.cli.output import AsJson, iso, show, table
from gateway.cli.stripe import on_stripe
from gateway.cli.target import CommandFailed, ConfigFile, Data, parsed, target
from gateway.core.accounting.topups import UCR_PER_CENT
from gateway.core.money import format_credits, format_dollars, parse_credits

if TYPE_CHECKING:
    from gateway.adapters.postgres.purchases import AskedRefund, Purchase
    from gateway.app.stores import Stores
    from gateway.app.stripe import StripeParts

app = typer.Typer(help="Purchases: list, show.", no_args_is_help=True)
refunds = typer.Typer(help="Refunds of unused credit.", no_args_is_help=True)

PurchaseArgument = Annotated[str, typer.Argument(metavar="PURCHASE", help="As `purchases list` shows it.")]


@refunds.callback()
def group() -> None:
    """Refunds of unused credit."""


@app.command("list")
def list_purchases(
    account: Annotated[str, typer.Option(help="Only this account's, by name or id.")] = "",
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the newest purchases."""

    async def look(parts: "StripeParts", stores: "Stores") -> "list[Purchase]":
        account_id = (await stores.accounts.find(account)).id if account else None
        return await parts.purchases.listing(account_id, count)

    found = on_stripe(target(data, config), look)
    rows = [
        [
            each.id,
            each.package,
            each.state.value,
            format_dollars(each.order.amount_cents),
            format_credits(each.posted.reversed),
        ]
        for each in found
    ]
    columns = ["purchase", "package", "state", "price", "taken back"]
    show(as_json, {"purchases": [described(each) for each in found]}, table("", columns, rows, right=columns[3:]))


@app.command("show")
def show_purchase(
    purchase: PurchaseArgument, data: Data = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Show a purchase: what was sold, where it stands at Stripe, and what of it is in the ledger."""
    found = on_stripe(target(data, config), lambda parts, _: parts.purchases.find(purchase))
    if found is None:
        raise CommandFailed(f"there is no purchase {purchase!r}; `tollgate purchases list` shows them")
    values = described(found)
    show(as_json, values, "\n".join(f"{name:18} {value}" for name, value in values.items()))


# A negative amount looks like an option; taken as an amount, it is refused with the better message.
@refunds.command("create", context_settings={"ignore_unknown_options": True})
def create_refund(
    purchase: PurchaseArgument,
    reason: Reason,
    credits: Annotated[str, typer.Option(help="How many paid credits; all that are unused, if not given.")] = "",
    key: Annotated[str, typer.Option(help="A name of your own, for one more refund of the same amount.")] = "",
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Give money back for unused credits of a purchase. Asked again, it is the same refund."""
    amount = parsed("--credits", parse_credits, credits) if credits else None
    asked = "all" if amount is None else format_credits(amount)  # however it was written: 1000.0, 1e3
    signature = signed(author, reason).checked()

    async def create(parts: "StripeParts", stores: "Stores") -> "AskedRefund":
        from gateway.adapters.postgres.purchases import AccountMoved, RefundTooLarge
        from gateway.workers.refunds import RefundRefused

        try:
            return await parts.refunds.create(purchase, amount, key=key or f"credits {asked}", signature=signature)
        except (RefundRefused, RefundTooLarge, AccountMoved) as error:
            raise CommandFailed(f"refused: {error}") from error
        finally:
            await stores.crediter.step()

    made = on_stripe(target(data, config), create)
    if made.state == "refused":
        raise CommandFailed(f"this refund was refused before: {made.answer}; give another --key to try again")
    values = {"refund": made.id, "state": made.state, "cents": made.cents, "stripe_id": made.stripe_id or None}
    under_way = "" if made.state == "made" else "; Stripe has not answered yet, the workers ask again"
    show(as_json, values, f"refund {made.id}: {format_dollars(made.cents)} {made.state}{under_way}")


def described(bought: "Purchase") -> dict[str, Any]:
    posted = bought.posted
    return {
        "purchase": bought.id,
        "account": bought.account_id,
        "package": bought.package,
        "state": bought.state.value,
        "price": format_dollars(bought.order.amount_cents),
        "tax": format_dollars(posted.tax // UCR_PER_CENT),
        "credits": format_credits(posted.paid),
        "bonus_credits": format_credits(posted.bonus),
        "reversed_credits": format_credits(posted.reversed),
        "refunded": format_dollars(posted.refunded // UCR_PER_CENT),
        "disputed": format_dollars(posted.withdrawn // UCR_PER_CENT),
        "stripe_fees": format_dollars(posted.fees // UCR_PER_CENT),
        "payment_intent": bought.payment_intent_id or None,
        "session": bought.session_id or None,
        "saves_card": bought.saves_card,
        "receipt": bought.receipt_url or None,
        "created_at": iso(bought.created_at),
        "paid_at": iso(bought.paid_at),
    }
