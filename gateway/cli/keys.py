"""`tollgate keys …`: secrets that prove a caller. A secret is shown once, when it is issued."""

from typing import Annotated, Any

import typer

from gateway.cli.accounts import AccountArgument
from gateway.cli.target import AsJson, ConfigFile, Data, run, show, table, target
from gateway.config import Config

app = typer.Typer(help="Keys: issue, list, revoke.", no_args_is_help=True)


@app.command("issue")
def issue(
    account: AccountArgument,
    name: Annotated[str, typer.Option(help="What the key is for, for listings.")] = "",
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Issue a key. It is shown this once: only its hash is stored."""

    async def main(settings: Config) -> tuple[str, str]:
        from gateway.app.stores import open_stores

        async with open_stores(settings) as stores:
            return await stores.accounts.issue_key((await stores.accounts.find(account)).id, name)

    secret, key_id = run(main(target(data, config)))
    show(as_json, {"key": secret, "key_id": key_id}, f"key     {secret}\nkey id  {key_id}\nThe key is not shown again.")


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `keys list` shows it.")],
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key; every gateway refuses it within a second."""

    async def main(settings: Config) -> None:
        from gateway.app.stores import open_stores

        async with open_stores(settings) as stores:
            await stores.accounts.revoke_key(key_id)

    run(main(target(data, config)))
    show(as_json, {"key_id": key_id, "revoked": True}, f"{key_id} is revoked")


@app.command("list")
def list_keys(account: AccountArgument, data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List an account's keys by their beginnings."""

    async def main(settings: Config) -> list[dict[str, Any]]:
        from gateway.app.stores import open_stores

        async with open_stores(settings) as stores:
            keys = await stores.accounts.keys((await stores.accounts.find(account)).id)
        return [
            {
                "key_id": key.id,
                "prefix": key.prefix,
                "name": key.name,
                "created_at": key.created_at.isoformat(timespec="seconds"),
                "revoked_at": key.revoked_at.isoformat(timespec="seconds") if key.revoked_at else None,
            }
            for key in keys
        ]

    keys = run(main(target(data, config)))
    rows = [
        [k["key_id"], f"{k['prefix']}…", k["created_at"][:10], (k["revoked_at"] or "")[:10], k["name"]] for k in keys
    ]
    show(as_json, {"keys": keys}, table("", ["key id", "key", "created", "revoked", "name"], rows))
