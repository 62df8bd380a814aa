"""`tollgate ops keys …`: who may use the operations API. A secret is shown once, when it is made."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.operator import Author, Reason, signed
from gateway.cli.output import AsJson, iso, show, table
from gateway.cli.target import ConfigFile, Data, on_stores, target
from gateway.core.access.operators import Role

if TYPE_CHECKING:
    pass

app = typer.Typer(help="Operators: who may use the operations API.", no_args_is_help=True)
keys = typer.Typer(help="Keys of operators: create, list, revoke.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who uses it: the author of all that is done with it.")],
    reason: Reason,
    role: Annotated[Role, typer.Option(help="viewer looks, operator changes, admin makes keys.")] = Role.VIEWER,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Create a key for an operator. It is shown this once: only its hash is stored."""
    signature = signed(author, reason)

    secret, key_id = on_stores(target(data, config), lambda stores: stores.ops_keys.create(name, role, signature))
    values = {"key": secret, "key_id": key_id, "name": name, "role": role.value}
    show(as_json, values, f"key     {secret}\nkey id  {key_id}\nThe key is not shown again.")


@keys.command("list")
def list_keys(data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List every operator's key, by its first characters."""
    found = on_stores(target(data, config), lambda stores: stores.ops_keys.list())
    rows = [
        (each.id, each.name, each.role, f"{each.prefix}…", "revoked" if each.revoked_at else "works") for each in found
    ]
    values: list[dict[str, Any]] = [
        {
            "key_id": each.id,
            "name": each.name,
            "role": each.role,
            "prefix": each.prefix,
            "created_at": iso(each.created_at),
            "revoked_at": iso(each.revoked_at),
        }
        for each in found
    ]
    columns = ("key id", "name", "role", "key", "state")
    shown = table("operators' keys", columns, rows, unfolded=("key id",)) if found else "no operator has a key"
    show(as_json, values, shown)


@keys.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `ops keys list` shows it.")],
    reason: Reason,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key; the next request with it is refused."""
    signature = signed(author, reason)
    on_stores(target(data, config), lambda stores: stores.ops_keys.revoke(key_id, signature))
    show(as_json, {"key_id": key_id, "state": "revoked"}, f"key {key_id} is revoked")
