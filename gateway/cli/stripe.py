"""`tollgate stripe …`: the events that Stripe sent, and catching up with it."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gateway.cli.output import AsJson, show, table
from gateway.cli.target import CommandFailed, ConfigFile, Data, on_stores, target
from gateway.config import Config, ConfigError

if TYPE_CHECKING:
    from gateway.app.stores import Stores
    from gateway.app.stripe import StripeParts
    from gateway.workers.backfill import CaughtUp

T = TypeVar("T")

app = typer.Typer(help="Stripe: its events, and what of them did not arrive.", no_args_is_help=True)
events = typer.Typer(help="Stripe's events: list, show, replay.", no_args_is_help=True)
app.add_typer(events, name="events")

SINCE_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]
Since = Annotated[datetime | None, typer.Option("--since", formats=SINCE_FORMATS, help="From this time on, UTC.")]
Count = Annotated[int, typer.Option("--count", min=1, max=10_000, help="How many.")]


class EventState(StrEnum):
    RECEIVED = "received"
    PROCESSED = "processed"
    RETRYING = "retrying"
    DEAD = "dead"


def on_stripe(config: Config, action: "Callable[[StripeParts, Stores], Awaitable[T]]") -> T:
    """As `on_stores`, with Stripe's side of a Tollgate too; raises `ConfigError` where nothing is sold.

    What Stripe says against it, and what is not what was sold, ends the command.
    """
    if not config.stripe_key:
        raise ConfigError("STRIPE_SECRET_KEY is not set, so nothing is sold here")
    from gateway.adapters.stripe.client import StripeRefused, StripeUnavailable
    from gateway.app.stripe import StripeParts
    from gateway.core.accounting.topups import Mismatch

    async def main(stores: "Stores") -> T:
        parts = StripeParts(config, stores)
        try:
            return await action(parts, stores)
        except StripeUnavailable as error:
            raise CommandFailed(f"Stripe cannot be reached, try again: {error}") from error
        except (StripeRefused, Mismatch) as error:
            raise CommandFailed(f"Stripe: {error}") from error
        finally:
            await parts.close()

    return on_stores(config, main)


@events.command("list")
def list_events(
    state: Annotated[EventState | None, typer.Option(help="Only those in this state.")] = None,
    kind: Annotated[str, typer.Option("--type", help="Only those of this type.")] = "",
    count: Count = 20,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the newest events, with what became of them."""
    found = on_stripe(
        target(data, config), lambda parts, _: parts.inbox.listing(state=state or "", kind=kind, count=count)
    )
    rows = [
        [e.id, f"{e.received_at:%m-%d %H:%M:%S}", f"{e.state} ({e.attempts})", f"{e.type}\n{e.reason}".strip()]
        for e in found
    ]
    columns = ["event", "received", "state (tries)", "type, and why"]
    listed = [
        {"id": e.id, "type": e.type, "state": e.state, "attempts": e.attempts, "reason": e.reason,
         "source": e.source, "received_at": e.received_at.isoformat()}
        for e in found
    ]  # fmt: skip
    show(as_json, {"events": listed}, table("Stripe's events, newest first", columns, rows, unfolded=["event"]))


@events.command("show")
def show_event(
    event_id: Annotated[str, typer.Argument(metavar="EVENT", help="As `stripe events list` shows it.")],
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show an event as it came, with its headers and its history."""
    found = on_stripe(target(data, config), lambda parts, _: parts.inbox.show(event_id))
    if found is None:
        raise CommandFailed(f"there is no event {event_id!r}; `tollgate stripe events list` shows them")
    values = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in found.items()}
    values["body"] = found["body"].decode("utf-8", "replace")
    told = "\n".join(f"{name:16} {value}" for name, value in values.items() if name != "body")
    show(as_json, values, f"{told}\n\n{values['body']}")


@events.command("replay")
def replay(
    event_id: Annotated[str, typer.Option("--id", help="This event.")] = "",
    since: Since = None,
    kind: Annotated[str, typer.Option("--type", help="Those of this type.")] = "",
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Have the workers handle events again, dead ones too. What is in the ledger already is not posted twice."""
    if not event_id and since is None and not kind:
        raise CommandFailed("say which events: --id, --since or --type")
    from_ = None if since is None else since.replace(tzinfo=UTC)
    count = on_stripe(
        target(data, config), lambda parts, _: parts.inbox.replay(event_id=event_id, since=from_, kind=kind)
    )
    if event_id and not count:
        raise CommandFailed(f"there is no such event {event_id!r}; `tollgate stripe events list` shows them")
    show(as_json, {"replayed": count}, f"{count} events will be handled again")


@app.command("backfill")
def backfill(since: Since = None, data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Fetch what Stripe could not deliver, and look at all that moved money since then (3 days)."""
    start = datetime.now(UTC) - timedelta(days=3) if since is None else since.replace(tzinfo=UTC)

    async def fetch(parts: "StripeParts", stores: "Stores") -> "CaughtUp":
        caught_up = await parts.backfill.run(int(start.timestamp()))
        await stores.crediter.step()
        return caught_up

    done = on_stripe(target(data, config), fetch)
    values = {"events": done.events, "payments": done.payments, "payouts": done.payouts, "own_fees": done.own_fees}
    looked = f"{done.payments} payments and {done.payouts} payouts looked at"
    show(as_json, values, f"{done.events} events fetched, {looked}, {done.own_fees} of Stripe's own fees booked")
