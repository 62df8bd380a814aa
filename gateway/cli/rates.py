"""`tollgate rates …`: the rate cards; check, show a model's row, build a new card."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.books import day_of
from gateway.cli.output import AsJson, show, table
from gateway.cli.target import CommandFailed, ConfigFile, Data, state_of
from gateway.config import Config, ConfigError, load
from gateway.core.money import format_credits
from gateway.core.pricing.rate_card import load_card
from gateway.core.pricing.rates import Rate, RateCard
from gateway.core.pricing.schedule import Schedule
from gateway.resources import shipped

app = typer.Typer(help="Rate cards: check, show, build.", no_args_is_help=True)

MARKUP_DEFAULT = "4"


@app.command("check")
def check(
    path: Annotated[Path | None, typer.Argument(help="A rate card, or a folder of them; else the configured.")] = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Read rate cards and recompute their rates; exit 0 only if all can be used."""
    from gateway.app.cards import card_paths, read_cards

    named = {} if path is None else {"rate_card": _path(path)}
    cards = [file.card for file in read_cards(card_paths(_settings(data, config, **named)))]
    standing = _standing(cards)
    listed = [
        {
            "version": card.version,
            "models": len(card.rows),
            "effective_from": str(card.effective_from),
            "standing": standing[card.version],
        }
        for card in cards
    ]
    columns = ["rate card", "models", "effective from", "standing"]
    show(as_json, {"cards": listed}, table("", columns, (card.values() for card in listed), right=["models"]))


def _path(path: Path) -> str:
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file or folder")
    if path.is_file() and path.suffix != ".toml":
        raise ConfigError(f"{path}: the name of a rate card ends in .toml")
    return str(path)


def _standing(cards: list[RateCard]) -> dict[str, str]:
    """By version: past, in force, or to come."""
    schedule, now_ms = Schedule(cards), _now_ms()
    in_force, *to_come = [card.version for card in schedule.from_now_on(now_ms)]
    known = {in_force: "in force"} | dict.fromkeys(to_come, "to come")
    return {card.version: known.get(card.version, "past") for card in cards}


@app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As callers name it.")],
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model costs now, in credits per million tokens."""
    from gateway.app.cards import load_cards

    now_ms = _now_ms()
    card = load_cards(_settings(data, config), now_ms).schedule.at(now_ms)
    row = card.find(model)
    if row is None:
        raise CommandFailed(f"{model}: not on rate card {card.version}; `tollgate rates check` lists the cards")
    classes = Rate.__struct_fields__
    columns: list[tuple[str, Rate]] = []
    for tier, brackets in row.tiers.items():
        for bracket in brackets:
            name = f"{tier} ≥ {bracket.input_tokens_min}" if bracket.input_tokens_min else tier
            columns.append((name, bracket.rate))
    values: dict[str, Any] = {"rate_card": card.version} | msgspec.to_builtins(row)
    rows = [[name, *(format_credits(getattr(rate, name)) for _, rate in columns)] for name in classes]
    title = f"{row.model} on {card.version}: credits per million tokens"
    names = [name for name, _ in columns]
    show(as_json, values, table(title, ["class", *names], rows, right=names))


def _settings(data: Path | None, config_file: Path | None, **named: str) -> Config:
    """The configuration; with `--data`, its rate cards are those that the running `up` charges by."""
    if data is not None and not named:
        named = {"rate_card": state_of(data)["rate_card"]}
    return load(config_file, **named)


def _now_ms() -> int:
    from gateway.app.sources import now_ms

    return now_ms()


@app.command("build")
def build(
    out: Annotated[Path | None, typer.Option(help="The file to write; standard output, if not given.")] = None,
    markup: Annotated[str, typer.Option(help="Times the provider's price.")] = MARKUP_DEFAULT,
    override: Annotated[
        list[str] | None, typer.Option(help="MODEL=MARKUP for one model or family; may be repeated.")
    ] = None,
    date: Annotated[str | None, typer.Option(help="YYYY-MM-DD of the prices; today, if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Build a rate card from the provider's dated prices, offline. It makes a file, and asks no running Tollgate."""
    from gateway.adapters.openai.rate_build import build_card

    facts = (shipped("config") / "models.toml").read_text(encoding="utf-8")
    overrides = dict(_override(text) for text in override or [])
    on_date = day_of("--date", date) if date else datetime.now(UTC).date()
    try:
        text = build_card(_decimal("--markup", markup), overrides, on_date, facts)
        card = load_card(text, out.stem if out is not None else f"{on_date}-openai")
    except ValueError as error:
        raise CommandFailed(str(error)) from error
    if out is not None:
        _write_new(out, text)
    values = {"version": card.version, "models": len(card.rows), "effective_from": str(card.effective_from)}
    values |= {"text": text} if out is None else {"path": str(out)}
    show(as_json, values, f"{out}: {card.version}" if out is not None else text.rstrip("\n"))


def _write_new(out: Path, text: str) -> None:
    if out.exists():
        raise CommandFailed(f"{out} exists; a rate card is never changed, so choose another name")
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"--out {out}: {error.strerror}; name a writable file") from error


def _override(text: str) -> tuple[str, Decimal]:
    model, _, markup = text.partition("=")
    return model, _decimal(f"--override {text}", markup)


def _decimal(option: str, text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise CommandFailed(f"{option}: {text!r} is not a number") from error
