"""`tollgate corrections …`: what waits for a second person. `tollgate books correct` asks for one."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.operator import Author, Reason, signed
from gateway.cli.target import AsJson, ConfigFile, Data, run, show, table, target
from gateway.config import Config
from gateway.core.money import format_credits

if TYPE_CHECKING:
    from gateway.adapters.postgres.corrections import Correction

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

    async def main(settings: Config) -> "list[Correction]":
        from gateway.app.stores import open_stores

        async with open_stores(settings) as stores:
            return await stores.corrections.listing(decided_too=decided_too, count=count)

    found = run(main(target(data, config)))
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

    async def main(settings: Config) -> "Correction":
        from gateway.app.stores import open_stores

        async with open_stores(settings) as stores:
            posted = await stores.corrections.approve(correction_id, signature)
            await stores.crediter.step()
            return posted

    done = run(main(target(data, config)))
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

    async def main(settings: Config) -> "Correction":
        from gateway.app.stores import open_stores

        async with open_stores(settings) as stores:
            return await stores.corrections.reject(correction_id, signature)

    done = run(main(target(data, config)))
    show(as_json, told(done), f"correction {done.id} is rejected")


def told(correction: "Correction") -> dict[str, Any]:
    """One for machines: credits as a decimal string, and in µcr."""
    import msgspec

    values: dict[str, Any] = msgspec.to_builtins(correction)
    amount = values.pop("amount")
    return values | {"credits": format_credits(amount), "amount_ucr": amount}
