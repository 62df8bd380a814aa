"""Building a rate card: the prices that the library genai-prices carries, times a markup, as TOML text.

The only file that imports genai-prices, lazily (it takes half a second), and never its updater: nothing here reaches
for the network. The same arguments give the same bytes. A price that cannot be told exactly stops the build or leaves
the model out, with the reason in the card; it is never rounded and never guessed.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from gateway.adapters.openai.model_facts import bounds_of, is_of_family, longest_family, read_facts
from gateway.core.pricing.rate_card import CLASSES, exact_rate

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

# Each class of usage: the library's price for it, and the class it costs the same as where there is none. OpenAI bills
# images as text unless it says otherwise, and reasoning always as output. Audio of a model that takes none cannot be
# reported; it still has a rate, so that a surprise is never free.
PRICE_OF = {
    "input": ("input_mtok", ""),
    "input_cached": ("cache_read_mtok", "input"),
    "input_cache_write": ("cache_write_mtok", "input"),
    "input_audio": ("input_audio_mtok", "input"),
    "input_image": ("input_image_mtok", "input"),
    "output": ("output_mtok", "input"),  # embeddings alone have no price for output, and no output
    "output_reasoning": ("", "output"),
    "output_audio": ("output_audio_mtok", "output"),
    "output_image": ("output_image_mtok", "output"),
}
# Fees of hosted tools, which the gateway refuses: no part of a token's price.
FEES_OF_TOOLS = frozenset({"web_searches_kcount", "storage_searches_kcount"})
TIERS = {"default": ("default",), "flex": ("flex",), "priority": ("priority", "fast")}  # ours: the library's names

# What our classes of tokens cannot price, by a piece of the model's id.
UNSOLD = {
    "-search": "charges a fee for each search",
    "deep-research": "works only with hosted tools, which have fees of their own",
    "computer-use": "works only with a hosted tool",
    "moderation": "is free",
    "image": "makes images, at another endpoint",
    "realtime": "is a session, at another endpoint",
    "live": "is a session, at another endpoint",
    "transcribe": "is priced by the second of audio, at another endpoint",
    "whisper": "is priced by the second of audio, at another endpoint",
    "tts": "speaks, at another endpoint",
    "gpt-oss": "is not served by OpenAI's API: the library has a reseller's price",
    ":extended": "is not served by OpenAI's API: the library has a reseller's price",
    "ft:": "is fine-tuned: give each model a row of its own, under its full id",
    ".ft-": "is fine-tuned: give each model a row of its own, under its full id",
}


class RateBuildError(ValueError):
    """No rate card can be built from these prices and markups; the message names what to change."""


class _Sold(NamedTuple):
    model: str
    aliases: list[str]
    markup: Decimal
    facts: dict[str, int]
    tiers: dict[str, "ModelPrice"]


def build_card(markup: Decimal, overrides: Mapping[str, Decimal], on_date: date, facts_toml: str) -> str:
    """Return the text of a rate card for every OpenAI text and embedding model, at the prices of `on_date`.

    `overrides` are markups by model or family ("gpt-4o" also means "gpt-4o-mini", the longest name wins);
    `facts_toml` is the text of config/models.toml. Raises `RateBuildError`, or
    `BadModelFacts` (both are ValueErrors with one line).
    """
    from genai_prices import __version__ as library_version
    from genai_prices.data import providers

    for name, given in {"the markup": markup, **overrides}.items():
        if not given.is_finite() or given <= 0:
            raise RateBuildError(f"{name}: {given} is no markup: give a number above 0, like 4")
    facts = read_facts(facts_toml)
    infos: list[ModelInfo] = next(provider for provider in providers if provider.id == "openai").models
    sold: list[_Sold] = []
    unsold: dict[str, str] = {}
    for info in sorted(infos, key=lambda info: info.id):
        reason = _reason_unsold(info, on_date)
        if reason:
            unsold[info.id] = reason
            continue
        sold.append(_sold(info, markup, overrides, on_date, facts))
        unsold |= {alias: reason for alias in _aliases(info) if (reason := _reason_by_name(alias))}
    unused = [name for name in sorted(overrides) if not any(is_of_family(row.model, name) for row in sold)]
    if unused:
        raise RateBuildError(f"no sold model belongs to {', '.join(unused)}: correct the override or drop it")
    lines = [*_header(on_date, library_version), *_unsold_lines(unsold)]
    for row in sold:
        lines += _model_lines(row)
    return "\n".join(lines) + "\n"


def _sold(
    info: "ModelInfo",
    markup: Decimal,
    overrides: Mapping[str, Decimal],
    on_date: date,
    facts: Mapping[str, Mapping[str, int]],
) -> _Sold:
    family = longest_family(info.id, overrides)
    tiers = {tier: price for tier in TIERS if (price := _tier_price(info, tier, on_date)) is not None}
    return _Sold(
        model=info.id,
        aliases=sorted(alias for alias in _aliases(info) if not _reason_by_name(alias)),
        markup=overrides[family] if family else markup,
        facts=bounds_of(info.id, info.context_window, facts),
        tiers=tiers,
    )


def _noon(on_date: date) -> datetime:
    return datetime.combine(on_date, time(12), UTC)


def _reason_by_name(model: str) -> str:
    return next((reason for piece, reason in UNSOLD.items() if piece in model), "")


def _reason_unsold(info: "ModelInfo", on_date: date) -> str:
    by_name = _reason_by_name(info.id)
    if by_name:
        return by_name
    priced = _priced_keys(info.get_prices(_noon(on_date)))
    unknown = priced - {key for key, _ in PRICE_OF.values()} - FEES_OF_TOOLS
    if unknown:
        return f"has prices that no class of tokens holds: {', '.join(sorted(unknown))}"
    if "input_mtok" not in priced:
        return "has no price for input"
    if "audio" in info.id and not {"input_audio_mtok", "output_audio_mtok"} <= priced:
        return "takes audio, for which the library has no price"
    if "output_mtok" not in priced and "embedding" not in info.id:
        return "has no price for output"
    return ""


def _priced_keys(price: "ModelPrice") -> set[str]:
    return {key for key, value in vars(price).items() if value is not None}


def _tier_price(info: "ModelInfo", tier: str, on_date: date) -> "ModelPrice | None":
    """The prices in one service tier, or None where it is not sold. The library's names of one tier must agree."""
    when = _noon(on_date)
    if tier == "default":
        return info.get_prices(when, {"service_tier": "default"})
    prices = [
        info.get_prices(when, {"service_tier": name})
        for name in TIERS[tier]
        if any(
            variant.when == {"service_tier": name} and (variant.constraint is None or variant.constraint.active(when))
            for variant in info.price_variants or ()
        )
    ]
    if any(price != prices[0] for price in prices):
        raise RateBuildError(
            f"{info.id}: the library prices {' and '.join(TIERS[tier])} differently; they are one tier"
        )
    return prices[0] if prices else None


def _aliases(info: "ModelInfo") -> Iterator[str]:
    """The other ids that a model's match clauses name outright; dated snapshots are found by the card's own rule."""
    for clause in getattr(info.match, "or_", [info.match]):
        alias = getattr(clause, "equals", "")
        if alias and alias != info.id:
            yield alias


def _header(on_date: date, library_version: str) -> list[str]:
    return [
        "# Tollgate rate card. Built by `tollgate rates build`; checked on every load; never edited once in use.",
        "#",
        "#   usd   the provider's price, in $ per million tokens",
        "#   ucr   ours: usd × markup, in micro-credits per million tokens ($1 = 1,000,000,000 micro-credits).",
        "#         These whole numbers are what a call is priced with.",
        "#   as    the provider has no separate price for this class of tokens: it costs what that class does",
        "#",
        "# A second table of a tier prices the whole call once its input has that many tokens (long context).",
        "",
        f"effective_from = {on_date.isoformat()}",
        'rounding = "exact"  # to the micro-credit, half up, once a call; "ceil": up to a whole credit',
        f'source = "genai-prices {library_version}, as of {on_date.isoformat()}"',
        "",
    ]


def _unsold_lines(unsold: Mapping[str, str]) -> list[str]:
    return ["# Not sold:", *(f"#   {model} {reason}" for model, reason in sorted(unsold.items())), ""]


def _model_lines(row: _Sold) -> list[str]:
    name = json.dumps(row.model)
    lines = ["", f"[models.{name}]"]
    if row.aliases:
        lines += ["aliases = [", *(f"    {json.dumps(alias)}," for alias in row.aliases), "]"]
    lines += [
        f"{key} = {_digits(row.facts[key])}" for key in ("context_tokens", "output_tokens_max", "image_tokens_max")
    ]
    lines.append(f'markup = "{row.markup}"')
    for tier, price in row.tiers.items():
        for threshold in _thresholds(price):
            lines += ["", f"[[models.{name}.{tier}]]", f"input_tokens_min = {_digits(threshold)}"]
            lines += _class_lines(row, price, threshold)
    return lines


def _thresholds(price: "ModelPrice") -> list[int]:
    """Where a bracket starts, in input tokens. The library's tiers apply *above* their start."""
    starts = {tier.start + 1 for value in vars(price).values() for tier in getattr(value, "tiers", ())}
    return [0, *sorted(starts)]


def _class_lines(row: _Sold, price: "ModelPrice", input_tokens: int) -> Iterator[str]:
    rates: dict[str, int] = {}
    width = max(map(len, CLASSES))
    for name in CLASSES:
        key, same_as = PRICE_OF[name]
        usd = _usd(price, key, input_tokens) if key else None
        if usd is None:
            rates[name] = rates[same_as]
            origin = f'as = "{same_as}"'
        else:
            rates[name] = _rate(row, name, usd)
            origin = f'usd = "{usd.normalize():f}"'
        yield f"{name:<{width}} = {{ ucr = {_digits(rates[name])}, {origin} }}"


def _usd(price: "ModelPrice", key: str, input_tokens: int) -> Decimal | None:
    value: object = getattr(price, key)
    base: object = getattr(value, "base", value)
    for tier in getattr(value, "tiers", ()):
        if input_tokens > tier.start:
            base = tier.price
    return base if isinstance(base, Decimal) else None


def _rate(row: _Sold, name: str, usd: Decimal) -> int:
    try:
        return exact_rate(usd, row.markup)
    except ValueError as error:
        raise RateBuildError(f"{row.model}, {name}: {error}: choose another markup") from error


def _digits(number: int) -> str:
    return f"{number:_}"
