"""`tollgate brownout …`: what reduces a model or a family, how far and until when."""

from datetime import timedelta
from typing import Annotated, Any

import typer

from gateway.adapters.postgres.audit_log import Signature
from gateway.app.sources import now_ms
from gateway.cli.operator import Author, Reason, signed
from gateway.cli.output import AsJson, iso, moment, show, table
from gateway.cli.target import CommandFailed, ConfigFile, Data, on_stores, parsed, target
from gateway.core.guard.brownout import Brownout, Level
from gateway.core.spans import read_span

app = typer.Typer(help="Brownouts: 1 shed, 2 trim, 3 reroute, 4 refuse a model for a time.", no_args_is_help=True)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A model, or a pattern such as 'gpt-4o*'.")]


LEVELS = (
    "1: a share of the accounts and keys of low priority is refused. 2: answers are capped, in the default tier (flex "
    "stays). 3: callers who send 'x-gateway-fallback: allow' get a cheaper model. 4: all are refused. Each does what "
    "those below it do."
)


@app.command("set")
def set_brownout(
    models: ModelArgument,
    level: Annotated[int, typer.Argument(metavar="LEVEL", min=1, max=4, help=LEVELS)],
    reason: Reason,
    span: Annotated[str, typer.Option("--for", help="It ends by itself after this: 30m, 2h, 1d.")],
    shed: Annotated[int | None, typer.Option(help="Percent of low-priority accounts and keys refused.")] = None,
    output_tokens: Annotated[int | None, typer.Option(help="The most of each choice, from level 2 on.")] = None,
    to: Annotated[str | None, typer.Option(help="The cheaper model of level 3.")] = None,
    banner: Annotated[str, typer.Option(help="What callers are told instead of the reason.")] = "",
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Reduce a model; every gateway follows within a second."""
    from gateway.app.brownouts import priced_models, reroute_of

    signature, for_ms = signed(author, reason), parsed("--for", read_span, span) // timedelta(milliseconds=1)
    settings = target(data, config)
    other = to if to is not None else reroute_of(settings, models)
    unpriced = [each for each in (models, other) if each and not priced_models(settings, each)]
    if unpriced:
        raise CommandFailed(f"the rate card has no model {unpriced[0]!r}; `tollgate rates show` lists them all")
    brownout = on_stores(
        settings,
        lambda stores: stores.brownouts.set(
            models,
            Level(level),
            signature,
            for_ms=for_ms,
            shed_percent=settings.brownout.shed_percent if shed is None else shed,
            output_tokens=settings.brownout.output_tokens if output_tokens is None else output_tokens,
            reroute_to=other,
            banner=banner,
        ),
    )
    assert brownout is not None
    show(as_json, told(brownout), f"{models}: level {level} until {moment(brownout.expires_at_ms)}\n{_does(brownout)}")


@app.command("show")
def show_brownouts(data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show every brownout that was set and not cleared."""
    brownouts = on_stores(target(data, config), lambda stores: stores.brownouts.list())
    rows = [
        (each.models, int(each.level), _does(each), _until(each), each.author, each.banner or each.reason)
        for each in brownouts
    ]
    columns = ("model", "level", "does", "until", "by", "why")
    shown = table("brownouts", columns, rows, right=("level",), unfolded=("model",)) if rows else "no model is reduced"
    show(as_json, [told(each) for each in brownouts], shown)


@app.command("clear")
def clear(
    models: ModelArgument,
    reason: Reason,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """End a brownout before its time."""
    signature: Signature = signed(author, reason)

    brownout = on_stores(target(data, config), lambda stores: stores.brownouts.clear(models, signature))
    show(as_json, {"models": models, "was": told(brownout)}, f"{models}: served as usual")


def told(brownout: Brownout) -> dict[str, Any]:
    """A brownout for machines."""
    return {
        "models": brownout.models,
        "level": int(brownout.level),
        "shed_percent": brownout.shed_percent,
        "output_tokens": brownout.output_tokens,
        "reroute_to": brownout.reroute_to,
        "reason": brownout.reason,
        "banner": brownout.banner,
        "author": brownout.author,
        "expires_at": iso(brownout.expires_at_ms),
        "is_expired": brownout.expires_at_ms <= now_ms(),
    }


def _does(brownout: Brownout) -> str:
    if brownout.level is Level.REFUSE:
        return "refuses all"
    parts = [f"sheds {brownout.shed_percent} % of low priority"]
    if brownout.level >= Level.TRIM:
        parts.append(f"{brownout.output_tokens} tokens out")
    if brownout.level is Level.REROUTE:
        parts.append(f"to {brownout.reroute_to} if allowed")
    return ", ".join(parts)


def _until(brownout: Brownout) -> str:
    return "expired" if brownout.expires_at_ms <= now_ms() else moment(brownout.expires_at_ms)
