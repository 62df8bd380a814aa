"""`tollgate reviews …`: who is in review and why, and letting them be served again."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.operator import Author, signed
from gateway.cli.output import AsJson, iso, show, table
from gateway.cli.target import ConfigFile, Data, on_stores, target

if TYPE_CHECKING:
    from gateway.adapters.postgres.reviews import Review

app = typer.Typer(help="Reviews: who is not served until somebody has looked.", no_args_is_help=True)

Reference = Annotated[str, typer.Argument(metavar="REFERENCE", help="As callers are told it, like rev_….")]


@app.command("list")
def list_reviews(
    closed_too: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the newest reviews."""
    found = on_stores(target(data, config), lambda stores: stores.reviews.listing(closed_too=closed_too, count=count))
    rows = [[each.reference, f"{each.opened_at:%m-%d %H:%M}", each.account, each.subject, _why(each)] for each in found]
    columns = ["review", "opened", "account", "what", "why"]
    show(as_json, {"reviews": [described(each) for each in found]}, table("", columns, rows))


@app.command("show")
def show_review(reference: Reference, data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show a review, with its figures."""
    values = described(on_stores(target(data, config), lambda stores: stores.reviews.find(reference)))
    show(as_json, values, "\n".join(f"{name:14} {value}" for name, value in values.items()))


@app.command("release")
def release(
    reference: Reference,
    reason: Annotated[str, typer.Option(help="Why; the owner is told it, and it is kept in the audit log.")],
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """End a review: what it kept from being served is served again within a second."""
    signature = signed(author, reason)

    ended = on_stores(target(data, config), lambda stores: stores.reviews.release(reference, signature))
    show(as_json, described(ended), f"review {reference} is over; the account {ended.account} is {ended.status}")


def described(review: "Review") -> dict[str, Any]:
    return {
        "review": review.reference,
        "account": review.account,
        "account_id": review.account_id,
        "account_status": review.status,
        "subject": review.subject,
        "key_id": review.key_id,
        "cause": review.cause,
        "reason": review.reason,
        "figures": review.figures,
        "opened_at": iso(review.opened_at),
        "closed_at": iso(review.closed_at),
        "closed_by": review.closed_by or None,
        "close_reason": review.close_reason or None,
    }


def _why(review: "Review") -> str:
    return review.reason or f"Stripe: {review.cause}"
