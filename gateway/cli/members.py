"""`tollgate members …`: the people of an account, and what each may manage."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.members import Member, MemberChange
from gateway.cli.accounts import AccountArgument
from gateway.cli.operator import BY_COMMAND, Author, Reason, signed
from gateway.cli.output import AsJson, iso, show, table
from gateway.cli.target import CommandFailed, ConfigFile, Data, on_stores, target
from gateway.core.access.roles import Role

if TYPE_CHECKING:
    from gateway.app.stores import Stores

app = typer.Typer(help="Members of an account: add, list, set, remove.", no_args_is_help=True)

MemberArgument = Annotated[str, typer.Argument(metavar="MEMBER", help="An e-mail address or an id.")]
Subject = Annotated[str | None, typer.Option(help="Who it is at the identity provider: the `sub` of its tokens.")]


class Status(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"


@app.command("add")
def add(
    account: AccountArgument,
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="An e-mail address.")],
    role: Annotated[Role, typer.Option(help="What it may manage.")] = Role.MEMBER,
    name: Annotated[str, typer.Option(help="For listings.")] = "",
    subject: Subject = None,
    reason: Reason = BY_COMMAND,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Add a member to an account."""
    signature = signed(author, reason)

    async def create(stores: "Stores") -> Member:
        account_id = (await stores.accounts.find(account)).id
        return await stores.members.create(account_id, email, role, name=name, subject=subject, by=signature)

    member = on_stores(target(data, config), create)
    show(as_json, _described(member), f"{member.email} is {_a(member.role)} of {account}\nmember id  {member.id}")


@app.command("set")
def set_member(
    account: AccountArgument,
    member: MemberArgument,
    role: Annotated[Role | None, typer.Option(help="What it may manage.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only an active member's keys are served.")] = None,
    name: Annotated[str | None, typer.Option(help="For listings.")] = None,
    subject: Subject = None,
    reason: Reason = BY_COMMAND,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Change a member; every gateway follows within a second."""
    named = {"role": role, "status": None if status is None else status.value, "name": name, "subject": subject}
    given: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
    if not given:
        raise CommandFailed("nothing to set; give --role, --status, --name or --subject")
    changed = _change(account, member, MemberChange(**given), signed(author, reason), data, config)
    show(as_json, _described(changed), f"{changed.email}: {_a(changed.role)}, {changed.status}")


@app.command("remove")
def remove(
    account: AccountArgument, member: MemberArgument, reason: Reason = BY_COMMAND,
    author: Author = None,
    data: Data = None, config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Remove a member and revoke its keys; its usage stays in the books."""
    removed = _change(account, member, MemberChange(status="removed"), signed(author, reason), data, config)
    show(as_json, _described(removed), f"{removed.email} is removed, and its keys are revoked")


@app.command("list")
def list_members(
    account: AccountArgument, data: Data = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """List an account's members."""

    async def look(stores: "Stores") -> list[Member]:
        return await stores.members.listing((await stores.accounts.find(account)).id)

    members = on_stores(target(data, config), look)
    rows = [[each.id, each.role.value, each.status, each.email, each.name] for each in members]
    columns = ["member id", "role", "status", "e-mail", "name"]
    show(as_json, {"members": [_described(each) for each in members]}, table("", columns, rows, unfolded=columns[:3]))


def _change(account: str, member: str, change: MemberChange, by: Signature, data: Data, config: ConfigFile) -> Member:
    async def apply(stores: "Stores") -> Member:
        account_id = (await stores.accounts.find(account)).id
        return await stores.members.change(account_id, member, change, by=by)

    return on_stores(target(data, config), apply)


def _described(member: Member) -> dict[str, Any]:
    return {
        "member": member.id,
        "email": member.email,
        "name": member.name,
        "subject": member.subject,
        "role": member.role.value,
        "status": member.status,
        "created_at": iso(member.created_at),
    }


def _a(role: Role) -> str:
    return f"an {role.value}" if role in (Role.OWNER, Role.ADMIN) else f"a {role.value}"
