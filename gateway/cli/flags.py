"""`tollgate flags …`: what is switched on and off, for whom and until when."""

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.adapters.postgres.audit_log import Signature
from gateway.app.sources import now_ms
from gateway.cli.operator import Author, Reason, signed
from gateway.cli.output import AsJson, iso, moment, show, table
from gateway.cli.target import CommandFailed, ConfigFile, Data, on_stores, parsed, target
from gateway.core.guard.flags import Flag, Scope, default_of
from gateway.core.spans import read_span

if TYPE_CHECKING:
    from gateway.app.stores import Stores

app = typer.Typer(help="Flags: charging_enabled, purchase_enabled, maintenance, endpoint:/v1/….", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="FLAG", help="charging_enabled, …, endpoint:/v1/embeddings.")]


class Value(StrEnum):
    ON = "on"
    OFF = "off"


class ScopeKind(StrEnum):
    ALL = "all"
    COHORT = "cohort"
    ACCOUNTS = "accounts"


@app.command("list")
def list_flags(data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List every flag that is set; the others are at their default."""
    flags = on_stores(target(data, config), lambda stores: stores.flags.list())
    rows = [
        (each.name, _word(each.value), each.scope, _until(each), each.author, each.banner or each.reason)
        for each in flags
    ]
    columns = ("flag", "value", "for", "until", "by", "why")
    shown = table("flags", columns, rows, unfolded=("flag",)) if flags else "every flag is at its default"
    show(as_json, [told(each) for each in flags], shown)


@app.command("set")
def set_flag(
    name: NameArgument,
    value: Annotated[Value, typer.Argument(help="Within its scope; outside of it a flag has the other value.")],
    reason: Reason,
    scope: Annotated[
        ScopeKind | None, typer.Option(help="As --percent or --accounts say, else all, if not given.")
    ] = None,
    percent: Annotated[
        int | None, typer.Option(help="A cohort of the accounts; a larger one holds every smaller one.")
    ] = None,
    accounts: Annotated[list[str] | None, typer.Option(help="Names or ids, parted by commas; may be repeated.")] = None,
    span: Annotated[
        str | None, typer.Option("--for", help="It ends by itself after this: 30m, 2h, 7d; never, if not given.")
    ] = None,
    banner: Annotated[str, typer.Option(help="What callers are told instead of the reason.")] = "",
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Set a flag; every gateway follows within a second."""
    signature = signed(author, reason)
    for_ms = None if span is None else parsed("--for", read_span, span) // timedelta(milliseconds=1)
    named = [each.strip() for given in accounts or () for each in given.split(",")]
    _check_scope(scope, percent, named)

    async def change(stores: "Stores") -> Flag:
        listed = frozenset([(await stores.accounts.find(each)).id for each in named]) if named else None
        wanted = Scope(percent, listed)
        return await stores.flags.set(name, value is Value.ON, wanted, signature, for_ms=for_ms, banner=banner)

    flag = on_stores(target(data, config), change)
    show(as_json, told(flag), _sentence(flag))


@app.command("clear")
def clear(
    name: NameArgument,
    reason: Reason,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Set a flag back to its default."""
    signature: Signature = signed(author, reason)

    flag = on_stores(target(data, config), lambda stores: stores.flags.clear(name, signature))
    default = _word(default_of(flag.name))
    show(as_json, {"flag": name, "value": default, "was": told(flag)}, f"{name}: {default} for all, as by default")


def told(flag: Flag) -> dict[str, Any]:
    """A flag for machines."""
    return {
        "flag": flag.name,
        "value": _word(flag.value),
        "scope": msgspec.to_builtins(flag.scope),
        "reason": flag.reason,
        "banner": flag.banner,
        "author": flag.author,
        "expires_at": iso(flag.expires_at_ms),
        "is_expired": _is_expired(flag),
    }


def _check_scope(scope: ScopeKind | None, percent: int | None, accounts: list[str]) -> None:
    given = {ScopeKind.COHORT: percent is not None, ScopeKind.ACCOUNTS: bool(accounts)}
    if all(given.values()):
        raise CommandFailed("give --percent or --accounts, not both")
    implied = next((kind for kind, is_given in given.items() if is_given), ScopeKind.ALL)
    if scope is not None and scope is not implied:
        needs = {ScopeKind.COHORT: "needs --percent", ScopeKind.ACCOUNTS: "needs --accounts"}
        raise CommandFailed(f"--scope {scope.value} {needs.get(scope, 'takes neither --percent nor --accounts')}")


def _sentence(flag: Flag) -> str:
    """What now holds for whom, and what will hold afterwards: the default may be for more people than the flag."""
    told_scope = "" if flag.scope.is_everybody else f", {_word(not flag.value)} for all others"
    until = f" until {_until(flag)}, then {_word(default_of(flag.name))} for all" if flag.expires_at_ms else ""
    return f"{flag.name}: {_word(flag.value)} for {flag.scope}{told_scope}{until}"


def _word(value: bool) -> str:
    return (Value.ON if value else Value.OFF).value


def _is_expired(flag: Flag) -> bool:
    return flag.expires_at_ms is not None and flag.expires_at_ms <= now_ms()


def _until(flag: Flag) -> str:
    if flag.expires_at_ms is None:
        return "cleared"
    return "expired" if _is_expired(flag) else moment(flag.expires_at_ms)
