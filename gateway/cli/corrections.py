"""`tollgate corrections …`: what waits for a second person. `tollgate books correct` asks for one."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.operator import Author, Reason, signed
from gateway.cli.output import AsJson, show, table
from gateway.cli.target import ConfigFile, Data, on_stores, target
from gateway.core.money import format_credits

if TYPE_CHECKING:
    from gateway.adapters.postgres.corrections import Correction
    from gateway.app.stores import Stores

app = typer.Typer(help="Corrections of balances that need a second person.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As `corrections list` shows it.")]


@app.command("list")
def list_corrections(
    decided_too: Annotated[bool, typer.Option("--all", help="Also those that are decided.")] = False,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the corrections that wait for a second person."""
    found = on_stores(
        target(data, config), lambda stores: stores.corrections.listing(decided_too=decided_too, count=count)
    )
    rows = [
        (each.id, each.account, f"{each.kind} {format_credits(each.amount)}", each.author, each.reason, each.state)
        for each in found
    ]
    columns = ("id", "account", "credits", "by", "why", "state")
    shown = table("corrections", columns, rows, unfolded=("id",)) if found else "nothing waits for a second person"
    show(as_json, [told(each) for each in found], shown)


@app.command("approve")
def approve(
    correction_id: IdArgument,
    reason: Reason,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Post a correction that somebody else asked for; it counts within a second."""
    signature = signed(author, reason)

    async def approve_and_credit(stores: "Stores") -> "Correction":
        posted = await stores.corrections.approve(correction_id, signature)
        await stores.crediter.step()
        return posted

    done = on_stores(target(data, config), approve_and_credit)
    show(as_json, told(done), f"{done.kind} of {format_credits(done.amount)} credits booked for {done.account}")


@app.command("reject")
def reject(
    correction_id: IdArgument,
    reason: Reason,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Give a correction up: nothing moves."""
    signature = signed(author, reason)

    done = on_stores(target(data, config), lambda stores: stores.corrections.reject(correction_id, signature))
    show(as_json, told(done), f"correction {done.id} is rejected")


def told(correction: "Correction") -> dict[str, Any]:
    """One for machines: credits as a decimal string, and in µcr."""
    import msgspec

    values: dict[str, Any] = msgspec.to_builtins(correction)
    amount = values.pop("amount")
    return values | {"credits": format_credits(amount), "amount_ucr": amount}
