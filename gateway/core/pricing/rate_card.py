"""Reading a rate card: TOML text in, a checked `RateCard` out, or one line that says what to mend.

The integers count; the provider's price and the markup stand beside them so that a reader, and this module on every
load, can recompute them. A card that disagrees with itself is refused, never repaired.
"""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from typing import Any, NoReturn

import msgspec

from gateway.core.money import UCR_PER_DOLLAR
from gateway.core.pricing.rates import DEFAULT_TIER, PRICED_TIERS, Bracket, ModelRates, Rate, RateCard, Rounding

CLASSES: tuple[str, ...] = Rate.__struct_fields__
TIERS = frozenset(PRICED_TIERS.values())

# No rate is near this ($25,000 a million tokens at 4×); above it, whole prices would outgrow what Lua can compare.
RATE_UCR_MAX = 10**14
TOKENS_MAX = 10**9
DECIMAL_LENGTH_MAX = 24

CARDS_KEPT_MAX = 16

_CARD_KEYS = frozenset({"effective_from", "rounding", "source", "models"})
_MODEL_KEYS = frozenset({"aliases", "context_tokens", "output_tokens_max", "image_tokens_max", "markup"}) | TIERS


class RateCardError(ValueError):
    """The rate card cannot be used: one line with the file, the key and the remedy."""


class _At(msgspec.Struct, frozen=True):
    """A place in a card, for messages."""

    file: str
    key: str

    def under(self, key: str) -> "_At":
        quoted = key if key.replace("_", "").isalnum() else f'"{key}"'
        return _At(self.file, f"{self.key}.{quoted}" if self.key else quoted)

    def fail(self, remedy: str) -> NoReturn:
        raise RateCardError(f"{self.file}: {self.key or 'the file'}: {remedy}")


@lru_cache(CARDS_KEPT_MAX)  # each audit, report and repricing reads all recorded cards: 10 to 30 ms for one
def load_card(text: str, name: str) -> RateCard:
    """Read the rate card `name` (its file's name without ".toml") from its text; raises `RateCardError`."""
    at = _At(f"{name}.toml", "")
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RateCardError(f"{at.file}: the file: is not valid TOML: {error}") from error
    _refuse_unknown(at, table, _CARD_KEYS)
    models = _table(at.under("models"), table.get("models"))
    if not models:
        at.under("models").fail("name at least one model")
    rows = {model: _row(at.under("models").under(model), model, models[model]) for model in models}
    return RateCard(
        name=name,
        hash=hashlib.sha256(text.encode()).hexdigest(),
        effective_from=_date(at.under("effective_from"), table.get("effective_from")),
        rounding=_rounding(at.under("rounding"), table.get("rounding")),
        rows=rows,
        aliases=_aliases(at.under("models"), models),
    )


def exact_rate(usd_per_million: Decimal, markup: Decimal) -> int:
    """Return µcr per million tokens for a provider's price in $ per million; raises ValueError if it is not whole.

    >>> exact_rate(Decimal("0.0025"), Decimal("4"))
    10000000
    """
    rate = Fraction(usd_per_million) * Fraction(markup) * UCR_PER_DOLLAR  # a Decimal product would round at 28 digits
    if rate.denominator != 1:
        raise ValueError(f"${usd_per_million} × {markup} is not a whole number of µcr per million tokens")
    return int(rate)


def _row(at: _At, model: str, value: object) -> ModelRates:
    table = _table(at, value)
    _refuse_unknown(at, table, _MODEL_KEYS)
    markup = _decimal(at.under("markup"), table["markup"]) if "markup" in table else None
    if DEFAULT_TIER not in table:
        at.fail(f"add a [[…{DEFAULT_TIER}]] table: every model needs that tier")
    tiers = {tier: _brackets(at.under(tier), table[tier], markup) for tier in sorted(TIERS & table.keys())}
    return ModelRates(
        model=model,
        tiers=tiers,
        context_tokens=_count(at.under("context_tokens"), table.get("context_tokens"), 1),
        output_tokens_max=_count(at.under("output_tokens_max"), table.get("output_tokens_max"), 0),
        image_tokens_max=_count(at.under("image_tokens_max"), table.get("image_tokens_max"), 1),
        markup=markup,
    )


def _brackets(at: _At, value: object, markup: Decimal | None) -> tuple[Bracket, ...]:
    if not isinstance(value, list) or not value:
        at.fail("write it as one or more tables in double brackets, [[…]]")
    brackets: list[Bracket] = []
    for number, item in enumerate(value):
        here = _At(at.file, f"{at.key}[{number}]")
        table = _table(here, item)
        _refuse_unknown(here, table, {"input_tokens_min", *CLASSES})
        least = _count(here.under("input_tokens_min"), table.get("input_tokens_min"), 0)
        if not brackets and least != 0:
            here.under("input_tokens_min").fail("must be 0 in the first table of a tier")
        if brackets and least <= brackets[-1].input_tokens_min:
            here.under("input_tokens_min").fail("must be larger than the one before it")
        brackets.append(Bracket(least, _rate(here, table, markup)))
    return tuple(brackets)


def _rate(at: _At, table: Mapping[str, Any], markup: Decimal | None) -> Rate:
    entries = {name: _table(at.under(name), table.get(name)) for name in CLASSES}
    rates = {name: _count(at.under(name).under("ucr"), entries[name].get("ucr"), 0, RATE_UCR_MAX) for name in CLASSES}
    for name, entry in entries.items():
        here = at.under(name)
        _refuse_unknown(here, entry, {"ucr", "usd", "as"})
        if "as" in entry and "usd" in entry:
            here.fail('say either usd or as = "…", not both')
        if "as" in entry:
            _check_same(here.under("as"), entry["as"], rates, name)
        if "usd" in entry:
            _check_usd(here.under("usd"), entry["usd"], markup, rates[name])
    return Rate(**rates)


def _check_same(at: _At, other: object, rates: Mapping[str, int], name: str) -> None:
    if not isinstance(other, str) or other not in rates or other == name:
        at.fail(f"name another class of tokens: one of {', '.join(CLASSES)}")
    if rates[other] != rates[name]:
        at.fail(f"{name} is {rates[name]} but {other} is {rates[other]} µcr: make them equal, or drop this key")


def _check_usd(at: _At, value: object, markup: Decimal | None, rate: int) -> None:
    if markup is None:
        at.fail("the model needs a markup, or drop this key")
    try:
        expected = exact_rate(_decimal(at, value), markup)
    except ValueError as error:
        if isinstance(error, RateCardError):
            raise
        at.fail(f"{error}: choose another markup")
    if expected != rate:
        at.fail(f"times the markup {markup} is {expected} µcr, but ucr says {rate}: mend one of them")


def _aliases(at: _At, models: Mapping[str, Any]) -> dict[str, str]:
    aliases: dict[str, str] = {}
    for model, table in models.items():
        here = at.under(model).under("aliases")
        given = table.get("aliases", [])
        if not isinstance(given, list) or not all(isinstance(alias, str) and alias for alias in given):
            here.fail("must be an array of model ids")
        for alias in given:
            if alias in models or alias in aliases:
                here.fail(f"{alias!r} is named twice: keep it in one place")
            aliases[alias] = model
    return aliases


def _refuse_unknown(at: _At, table: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in sorted(table.keys() - set(known)):
        at.under(key).fail(f"is not a known key; known here: {', '.join(sorted(known))}")


def _table(at: _At, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        at.fail("is missing: add it" if value is None else "must be a table")
    return value


def _count(at: _At, value: object, least: int, most: int = TOKENS_MAX) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        at.fail(f"must be a whole number from {least} to {most}" + ("" if value is not None else "; it is missing"))
    return value


def _decimal(at: _At, value: object) -> Decimal:
    try:
        number = Decimal(value) if isinstance(value, str) and len(value) <= DECIMAL_LENGTH_MAX else Decimal("NaN")
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or not 0 <= number <= RATE_UCR_MAX or number.adjusted() < -DECIMAL_LENGTH_MAX:
        at.fail('must be a number of 0 or more, as a string: "2.5"')
    return number


def _date(at: _At, value: object) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        at.fail("must be a date, like 2026-11-21, without quotes")
    return value


def _rounding(at: _At, value: object) -> Rounding:
    if not isinstance(value, str) or value not in list(Rounding):
        at.fail('must be "exact" (to the µcr) or "ceil" (up to a whole credit)')
    return Rounding(value)
