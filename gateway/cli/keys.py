"""`tollgate keys …`: secrets that prove a caller. A secret is shown once, when it is made."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.adapters.postgres.keys import Key
from gateway.cli.accounts import AccountArgument
from gateway.cli.operator import BY_COMMAND, Author, Reason, signed
from gateway.cli.output import AsJson, iso, show, table
from gateway.cli.target import CommandFailed, ConfigFile, Data, on_stores, parsed, target
from gateway.core.access.callers import DEFAULT_SCOPES, Priority, Scope
from gateway.core.access.key_terms import KeyTerms
from gateway.core.spans import read_span

if TYPE_CHECKING:
    from gateway.app.stores import Stores

app = typer.Typer(help="Keys: create, list, rotate, revoke.", no_args_is_help=True)

KeyArgument = Annotated[str, typer.Argument(metavar="KEY_ID", help="As `keys list` shows it.")]


@app.command("create")
@app.command("issue", hidden=True)  # its name until 0.1
def create(
    account: AccountArgument,
    name: Annotated[str, typer.Option(help="What the key is for, for listings.")] = "",
    member: Annotated[str | None, typer.Option(help="Whose it is: an e-mail address or an id.")] = None,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it may do; may be repeated. If not given: calls, read and buy.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="After a span like 90d, or at a moment with its offset.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model it may use, or a pattern like gpt-4o*; may be repeated.")
    ] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="A path it may call, or a pattern; may be repeated.")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="A network it may come from, like 192.0.2.0/24; may be repeated.")
    ] = None,
    priority: Annotated[
        Priority, typer.Option(help="Of low priority, it is refused first. Normal: its account's.")
    ] = Priority.NORMAL,
    reason: Reason = BY_COMMAND,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Create a key. It is shown this once: only its hash is stored."""
    expires_at, signature = None if expires is None else _moment(expires), signed(author, reason)

    async def issue(stores: "Stores") -> tuple[str, str]:
        account_id = (await stores.accounts.find(account)).id
        terms = KeyTerms(
            name=name,
            member_id=None if member is None else (await stores.members.find(account_id, member)).id,
            scopes=DEFAULT_SCOPES if not scope else frozenset(each.value for each in scope),
            expires_at=expires_at,
            models=tuple(model or ()),
            endpoints=tuple(endpoint or ()),
            networks=tuple(network or ()),
            priority=priority,
        )
        return await stores.keys.issue(account_id, terms, by=signature)

    _show_secret(as_json, *on_stores(target(data, config), issue))


@app.command("rotate")
def rotate(
    key_id: KeyArgument,
    overlap: Annotated[str, typer.Option(help="How long the old key still works: 30s, 15m, 24h, 7d.")] = "24h",
    reason: Reason = BY_COMMAND,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Create a key on the same terms, and let the old one expire after the overlap."""
    span = parsed("--overlap", read_span, overlap)
    signature = signed(author, reason)

    made = on_stores(target(data, config), lambda stores: stores.keys.rotate(key_id, span, by=signature))
    _show_secret(as_json, *made, after=f"{key_id} works on for {overlap} at most.")


@app.command("revoke")
def revoke(
    key_id: KeyArgument,
    reason: Reason = BY_COMMAND,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key; every gateway refuses it within a second."""
    signature = signed(author, reason)
    on_stores(target(data, config), lambda stores: stores.keys.revoke(key_id, by=signature))
    show(as_json, {"key_id": key_id, "revoked": True}, f"{key_id} is revoked")


@app.command("list")
def list_keys(account: AccountArgument, data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List an account's keys by their beginnings, the newest first; --json shows their terms too."""

    async def look(stores: "Stores") -> list[Key]:
        return await stores.keys.listing((await stores.accounts.find(account)).id)

    keys = on_stores(target(data, config), look)
    now = datetime.now(UTC)
    rows = [[key.id, f"{key.prefix}…", _state(key, now), key.member_email or "", key.terms.name] for key in keys]
    columns = ["key id", "key", "state", "member", "name"]
    show(as_json, {"keys": [_described(key) for key in keys]}, table("", columns, rows, unfolded=columns[:3]))


def _described(key: Key) -> dict[str, Any]:
    return {
        "key_id": key.id,
        "prefix": key.prefix,
        "name": key.terms.name,
        "member": key.member_email,
        "scopes": sorted(key.terms.scopes),
        "models": list(key.terms.models),
        "endpoints": list(key.terms.endpoints),
        "networks": list(key.terms.networks),
        "priority": key.terms.priority,
        "rotated_from": key.rotated_from,
        "created_at": iso(key.created_at),
        "expires_at": iso(key.terms.expires_at),
        "revoked_at": iso(key.revoked_at),
    }


def _state(key: Key, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.terms.expires_at is None:
        return "active"
    return "expired" if key.terms.expires_at <= now else f"to {key.terms.expires_at:%Y-%m-%d}"


def _moment(text: str) -> datetime:
    try:
        return datetime.now(UTC) + read_span(text)
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandFailed("--expires: a span like 90d, or a moment like 2027-01-31T00:00:00Z") from error


def _show_secret(as_json: bool, secret: str, key_id: str, after: str = "") -> None:
    shown = f"key     {secret}\nkey id  {key_id}\nThe key is not shown again. {after}".rstrip()
    show(as_json, {"key": secret, "key_id": key_id}, shown)
