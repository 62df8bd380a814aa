"""`tollgate caps …`: what accounts, members and keys may use at most, and what they have used of it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.adapters.postgres.cap_desk import Standing
from gateway.adapters.redis.counters import Used
from gateway.adapters.redis.credits import CreditsError
from gateway.adapters.redis.link import RedisUnavailable
from gateway.cli.operator import BY_COMMAND, Author, signed
from gateway.cli.output import AsJson, show, table
from gateway.cli.target import CommandFailed, ConfigFile, Data, on_stores, target
from gateway.core.guard.caps import UNLIMITED, Caps, Excess, Shortfall
from gateway.core.guard.plans import UNLIMITED_WORD, parse_limit
from gateway.core.guard.windows import ends_at
from gateway.core.money import InvalidAmount, format_credits

if TYPE_CHECKING:
    from gateway.app.stores import Stores

app = typer.Typer(help="Caps: credits, output, rates, calls at once, models.", no_args_is_help=True)

INHERIT_WORD = "inherit"
Who = Annotated[str, typer.Argument(metavar="ACCOUNT|MEMBER|KEY", help="A name, e-mail address or id; or plan:NAME.")]
Models = Annotated[str | None, typer.Option(metavar="NAMES", help="Parted by commas, with * and ?.")]


def _option(of: str) -> Any:
    return typer.Option(metavar="N", help=of)


def _policy(choices: Iterable[str], what: str) -> Any:
    return typer.Option(metavar="|".join(choices), help=what)


_SHOWN = {
    "request": "credits a call",
    "day": "credits a day",
    "month": "credits a month",
    "output_tokens": "output tokens",
    "requests_a_minute": "requests a minute",
    "tokens_a_minute": "tokens a minute",
    "concurrent": "calls at once",
    "models_allowed": "models",
    "models_denied": "models denied",
    "on_output": "too much output",
    "on_unaffordable": "too little credit",
}
_IN_CREDITS = ("request", "day", "month")
_UNLIMITED_MODELS: dict[str, tuple[str, ...]] = {"models_allowed": ("*",), "models_denied": ()}
_CHOICES: dict[str, list[str]] = {"on_output": [*Excess], "on_unaffordable": [*Shortfall]}


@app.command("set")
def set_caps(
    who: Who,
    request: Annotated[str | None, _option("Credits for one call.")] = None,
    day: Annotated[str | None, _option("Credits a day.")] = None,
    month: Annotated[str | None, _option("Credits a month.")] = None,
    output_tokens: Annotated[str | None, _option("Output tokens of one call.")] = None,
    rpm: Annotated[str | None, _option("Requests a minute.")] = None,
    tpm: Annotated[str | None, _option("Tokens a minute.")] = None,
    concurrent: Annotated[str | None, _option("Calls at once.")] = None,
    models: Models = None,
    deny_models: Models = None,
    on_output: Annotated[
        str | None, _policy(Excess, "A call that wants more output: give it less, or refuse it.")
    ] = None,
    on_unaffordable: Annotated[
        str | None, _policy(Shortfall, "The same for what the balance does not cover; or hold long streams in slices.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit log.")] = BY_COMMAND,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Set caps; what is not named stays. Every gateway follows within a second.

    Each takes 'unlimited', which lifts what the plan says, and 'inherit', which takes the cap away again.
    """
    given = {
        "request": request,
        "day": day,
        "month": month,
        "output_tokens": output_tokens,
        "requests_a_minute": rpm,
        "tokens_a_minute": tpm,
        "concurrent": concurrent,
        "models_allowed": models,
        "models_denied": deny_models,
        "on_output": on_output,
        "on_unaffordable": on_unaffordable,
    }
    change = {
        name: None if text == INHERIT_WORD else _cap(name, text) for name, text in given.items() if text is not None
    }
    signature = signed(author, reason)

    async def apply(stores: "Stores") -> list[Standing]:
        found = await stores.caps.find(who)
        await stores.caps.set(found, change, signature)
        try:
            return (await stores.caps.standing(found))[:1]
        except (RedisUnavailable, CreditsError):  # the caps are set all the same
            return [await stores.caps.standing_unused(found)]

    _show(on_stores(target(data, config), apply), as_json)


@app.command("show")
def show_caps(who: Who, data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show the caps that hold, and what is used of them; of an account, its members' and keys' too."""

    async def look(stores: "Stores") -> list[Standing]:
        return await stores.caps.standing(await stores.caps.find(who))

    _show(on_stores(target(data, config), look), as_json)


def _cap(name: str, text: str) -> Any:
    """A cap as `Caps` has it."""
    if name in _UNLIMITED_MODELS:
        return _UNLIMITED_MODELS[name] if text == UNLIMITED_WORD else tuple(each.strip() for each in text.split(","))
    if name in _CHOICES:
        if text not in _CHOICES[name]:
            raise CommandFailed(f"{name}: {text!r} is none of {', '.join([*_CHOICES[name], INHERIT_WORD])}")
        return text
    try:
        return parse_limit(name, text)
    except InvalidAmount as error:
        raise CommandFailed(f"{name}: {error}; or {UNLIMITED_WORD!r}, or {INHERIT_WORD!r}") from error


def _show(standings: list[Standing], as_json: bool) -> None:
    who = standings[0].who
    rows = [row for each in standings for row in _rows(each)]
    columns = ("of", "cap", "limit", "used", "resets")
    shown = table(f"caps of {who.level} {who.name or who.id}", columns, rows, right=("limit", "used"), unfolded=("of",))
    show(as_json, [_told(each) for each in standings], shown if rows else f"{who.level} {who.id} has no caps")


def _rows(standing: Standing) -> list[tuple[str, ...]]:
    who = standing.who
    of = who.level if who.level in ("account", "plan") else who.name or who.id
    return [
        (of, _SHOWN[name], _value(name, value), _used(name, standing.used), _resets(name, standing))
        for name, value in msgspec.structs.asdict(standing.caps).items()
        if value is not None
    ]


def _value(name: str, value: Any) -> str:
    if value == UNLIMITED:
        return UNLIMITED_WORD
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return format_credits(value) if name in _IN_CREDITS else str(value)


def _used(name: str, used: Used) -> str:
    counted = {"day": used.day, "month": used.month, "concurrent": used.open_calls}.get(name)
    return "" if counted is None else _value(name, counted)


def _resets(name: str, standing: Standing) -> str:
    window = {"day": standing.windows.day, "month": standing.windows.month}.get(name)
    return "" if window is None else ends_at(window, standing.who.time_zone)


def _told(standing: Standing) -> dict[str, Any]:
    """The same for machines: amounts in µcr; null is unlimited, and what is not there is not capped."""
    caps: Caps = standing.caps
    given = {name: value for name, value in msgspec.structs.asdict(caps).items() if value is not None}
    return {
        "level": standing.who.level,
        "id": standing.who.id,
        "name": standing.who.name,
        "caps": {name: None if value == UNLIMITED else value for name, value in given.items()},
        "used": msgspec.to_builtins(standing.used),
        "resets_at": {name: _resets(name, standing) for name in ("day", "month")},
    }
