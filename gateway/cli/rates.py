"""`tollgate rates …`: the rate cards; check, show a model's row, build a new card."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.target import AsJson, CommandFailed, ConfigFile, show, table
from gateway.config import ConfigError, load
from gateway.core.money import format_credits
from gateway.core.rate_card import RateCardError, load_card
from gateway.core.rates import Rate
from gateway.resources import shipped

app = typer.Typer(help="Rate cards: check, show, build.", no_args_is_help=True)

MARKUP_DEFAULT = "4"


@app.command("check")
def check(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Read every rate card and recompute its rates; exit 0 only if all can be used."""
    load(config)
    cards = []
    for path in sorted((shipped("config") / "rates").glob("*.toml")):
        try:
            card = load_card(path.read_text(encoding="utf-8"), path.stem)
        except (RateCardError, OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{error}") from error
        cards.append({"version": card.version, "models": len(card.rows), "effective_from": str(card.effective_from)})
    if not cards:
        raise ConfigError("config/rates holds no card; make one with `tollgate rates build`")
    rows = [[card["version"], card["models"], card["effective_from"]] for card in cards]
    show(as_json, {"cards": cards}, table("", ["rate card", "models", "effective from"], rows, right=["models"]))


@app.command("show")
def show_model(model: str, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show what a model costs, in credits per million tokens."""
    from gateway.app.cards import load_rate_card

    card, _ = load_rate_card(load(config))
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


@app.command("build")
def build(
    out: Annotated[Path | None, typer.Option(help="The file to write; standard output if not given.")] = None,
    markup: Annotated[str, typer.Option(help="Times the provider's price.")] = MARKUP_DEFAULT,
    override: Annotated[
        list[str] | None, typer.Option(help="MODEL=MARKUP for one model or family; may be repeated.")
    ] = None,
    date: Annotated[str | None, typer.Option(help="YYYY-MM-DD of the prices; today if not given.")] = None,
) -> None:
    """Build a rate card from the provider's dated prices, offline."""
    from gateway.adapters.rate_build import RateBuildError, build_card

    facts = (shipped("config") / "models.toml").read_text(encoding="utf-8")
    overrides = dict(_override(text) for text in override or [])
    try:
        on_date = datetime.strptime(date, "%Y-%m-%d").date() if date else datetime.now(UTC).date()  # noqa: DTZ007
        text = build_card(_decimal("--markup", markup), overrides, on_date, facts)
    except (RateBuildError, ValueError) as error:
        raise CommandFailed(str(error)) from error
    if out is None:
        print(text, end="")
        return
    if out.exists():
        raise CommandFailed(f"{out} exists; a rate card is never changed, so choose another name")
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"--out {out}: {error.strerror}; name a writable file") from error
    print(f"{out}: {load_card(text, out.stem).version}")


def _override(text: str) -> tuple[str, Decimal]:
    model, _, markup = text.partition("=")
    return model, _decimal(f"--override {text}", markup)


def _decimal(option: str, text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise CommandFailed(f"{option}: {text!r} is not a number") from error
