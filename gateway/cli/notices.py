"""`tollgate notices …`: what was told to whom, what did not arrive, and whom notices reach."""

import secrets
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.operator import BY_COMMAND, Author, Reason, signed
from gateway.cli.output import AsJson, show, table
from gateway.cli.target import CommandFailed, ConfigFile, Data, on_stores, target

if TYPE_CHECKING:
    from gateway.adapters.postgres.notices import Listed
    from gateway.app.stores import Stores

app = typer.Typer(help="Notices: what was told to whom.", no_args_is_help=True)
targets = typer.Typer(help="Whom notices reach: add, list, test, remove.", no_args_is_help=True)
app.add_typer(targets, name="targets")

SECRET_BYTES = 32
TargetArgument = Annotated[str, typer.Argument(metavar="TARGET", help="As `notices targets list` shows it.")]


class State(StrEnum):
    PENDING = "pending"
    RETRYING = "retrying"
    SENT = "sent"
    DEAD = "dead"


@app.command("list")
def list_notices(
    state: Annotated[State | None, typer.Option(help="Only those with a delivery in this state.")] = None,
    kind: Annotated[str, typer.Option(help="Only those of this kind.")] = "",
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the newest notices, each with how far its deliveries are."""
    found = on_stores(
        target(data, config), lambda stores: stores.notices.listing(kind=kind, state=state or "", count=count)
    )
    rows = [
        [each.id, f"{each.created_at:%m-%d %H:%M:%S}", each.kind, each.account or "", _arrival(each)] for each in found
    ]
    listed = [
        {"id": each.id, "kind": each.kind, "account": each.account, "fields": each.fields,
         "created_at": each.created_at.isoformat(), "deliveries": each.deliveries}
        for each in found
    ]  # fmt: skip
    columns = ["notice", "raised", "kind", "account", "deliveries"]
    show(as_json, {"notices": listed}, table("notices, newest first", columns, rows))


def _arrival(notice: "Listed") -> str:
    if not notice.deliveries:
        return "nobody to tell"
    return "\n".join(
        f"{each['target']}: {each['state']}{' (' + each['error'] + ')' if each['error'] else ''}"
        for each in notice.deliveries
    )


@app.command("retry")
def retry(
    notice: Annotated[str, typer.Argument(metavar="[NOTICE]", help="One; all that were given up, if not given.")] = "",
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Try again to deliver what was given up."""
    count = on_stores(target(data, config), lambda stores: stores.notices.retry(notice))
    show(as_json, {"deliveries": count}, f"{count} deliveries are tried again")


@targets.command("add")
def add_target(
    url: Annotated[
        str, typer.Argument(help="https://… is a signed webhook; else apprise's: mailto://, slack://…; - reads it.")
    ],
    account: Annotated[str, typer.Option(help="Whose notices: its name or id; the operators', if not given.")] = "",
    reason: Reason = BY_COMMAND,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Add whom notices reach. The secret that a webhook's deliveries are signed with is shown this once."""
    from gateway.adapters.notify import UnusableTarget, describe

    url = sys.stdin.readline().strip() if url == "-" else url
    try:
        kind, shown = describe(url)
    except UnusableTarget as error:
        raise CommandFailed(str(error)) from error
    signature = signed(author, reason)
    secret = "whsec_" + secrets.token_urlsafe(SECRET_BYTES) if kind == "webhook" else ""

    async def add(stores: "Stores") -> str:
        account_id = (await stores.accounts.find(account)).id if account else None
        return await stores.notice_targets.add(account_id, kind, url, signature, secret=secret, shown=shown)

    target_id = on_stores(target(data, config), add)
    values = {"target": target_id, "kind": kind, "url": shown} | ({"secret": secret} if secret else {})
    show(as_json, values, f"target {target_id}: {shown}" + (f"\nsecret {secret}" if secret else ""))


@targets.command("list")
def list_targets(data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List whom notices reach, without what is secret."""
    found = on_stores(target(data, config), lambda stores: stores.notice_targets.listing())
    rows = [[each.id, each.account or "operators", each.shown] for each in found]
    listed = [{"id": each.id, "account": each.account, "kind": each.kind, "url": each.shown} for each in found]
    show(as_json, {"targets": listed}, table("", ["target", "for", "url"], rows))


@targets.command("test")
def send_test(target_id: TargetArgument, data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Send a test to one target; `notices list --kind test` shows whether it arrived."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    on_stores(target(data, config), lambda stores: stores.notices.test(target_id, now))
    show(as_json, {"target": target_id}, "a test is on its way; `tollgate notices list --kind test` shows its fate")


@targets.command("remove")
def remove_target(
    target_id: TargetArgument,
    reason: Reason = BY_COMMAND,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove a target, and its secrets."""
    signature = signed(author, reason)
    on_stores(target(data, config), lambda stores: stores.notice_targets.remove(target_id, signature))
    show(as_json, {"target": target_id}, f"target {target_id} removed")
