"""Rate cards: what a token of each class costs, and the one place where usage becomes money.

A card is dated, versioned by the hash of its text and never changed: a hold is settled under the version it was opened
under. Rates are whole µcr per million tokens, so a price is exact until it is rounded, once per call.
Nothing here guesses: a model or tier that the card does not name has no price.
"""

import re
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

import msgspec
import msgspec.structs

from gateway.core.calls.usage import Usage
from gateway.core.money import UCR_PER_CREDIT, MicroCredits, divide_half_up

TOKENS_PER_RATE = 1_000_000

DEFAULT_TIER = "default"

# What a `service_tier` is priced as, asked or served; what is not here is not sold ("ultrafast" has no public price).
# Scale tier is capacity bought from OpenAI in advance: its tokens cost the caller what the default tier's do.
# Source: ServiceTier and ServiceTierResponses of OpenAI's published OpenAPI document.
PRICED_TIERS = {
    "default": "default",
    "scale": "default",
    "flex": "flex",
    "priority": "priority",
    "fast": "priority",
}

_DATED = re.compile(r"-[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATED_LENGTH = len("-2024-08-06")

# The dearest image that any model's documentation names: eight tiles on gpt-4o-mini.
IMAGE_TOKENS_MAX = 2_833 + 8 * 5_667


class UnsoldTier(LookupError):
    """The rate card has no price for this service tier of this model."""


class Rate(msgspec.Struct, frozen=True):
    """µcr per million tokens for each class of `Usage`; every class is written out: pricing knows no fallback."""

    input: int
    input_cached: int
    input_cache_write: int
    input_audio: int
    input_image: int
    output: int
    output_reasoning: int
    output_audio: int
    output_image: int


class Bracket(msgspec.Struct, frozen=True):
    """A rate and the least number of input tokens from which it prices the whole call (long context)."""

    input_tokens_min: int
    rate: Rate


class Ceiling(NamedTuple):
    """The dearest rates that a call of so many input tokens can reach."""

    input_tokens_min: int
    input: int
    output: int


class ModelRates(msgspec.Struct, frozen=True):
    """One model's row: brackets for each service tier, ascending; plus the bounds an estimate needs."""

    model: str
    tiers: dict[str, tuple[Bracket, ...]]  # "default" always; "flex", "priority" where sold
    context_tokens: int  # the largest input
    output_tokens_max: int  # the largest output of one choice; 0 for embeddings
    image_tokens_max: int = IMAGE_TOKENS_MAX  # the most input tokens that one image counts for
    markup: Decimal | None = None  # our rates over the provider's prices; None if the card does not say
    # By tier, derived from the brackets. The upstream may serve a call in the default tier whatever it asked for.
    ceilings: dict[str, tuple[Ceiling, ...]] = {}

    def __post_init__(self) -> None:
        default = self.tiers.get(DEFAULT_TIER, ())
        ceilings = {
            tier: tuple(map(_ceiling, brackets if tier == DEFAULT_TIER else brackets + default))
            for tier, brackets in self.tiers.items()
        }
        msgspec.structs.force_setattr(self, "ceilings", ceilings)

    def brackets(self, tier: str) -> tuple[Bracket, ...]:
        """The brackets of a priced tier, ascending; raises `UnsoldTier`."""
        brackets = self.tiers.get(tier)
        if brackets is None:
            raise UnsoldTier(f"{self.model} is not sold in service tier {tier!r}")
        return brackets


class Rounding(StrEnum):
    EXACT = "exact"  # to the µcr, half up
    CEIL = "ceil"  # up to a whole credit


class RateCard(msgspec.Struct, frozen=True):
    """All that is sold, at which rates, from when; made by `rate_card.load_card` and never changed."""

    name: str  # "2026-11-21-openai": the file's name without its suffix
    hash: str  # SHA-256 of the file's text, in hex
    effective_from: date
    rounding: Rounding
    rows: dict[str, ModelRates]  # by model
    aliases: dict[str, str]  # other ids of a model → the model

    @property
    def version(self) -> str:
        """The name that every hold and ledger line keeps: the card's name and the first 12 hex digits of its hash."""
        return f"{self.name}@{self.hash[:12]}"

    def find(self, model: str) -> ModelRates | None:
        """Return the row that prices `model`, or None: then it is not sold.

        A row or alias of that very id comes first; a dated snapshot ("gpt-4o-2024-08-06") costs what its family does.
        A fine-tuned model ("ft:…") is sold only under its own id, since its price is not its base model's.
        """
        row = self._exact(model)
        if row is None and not model.startswith("ft:") and _DATED.fullmatch(model[-_DATED_LENGTH:]):
            row = self._exact(model[:-_DATED_LENGTH])
        return row

    def rate_named(self, rate_key: str) -> tuple[ModelRates, Rate] | None:
        """Return the row and the rate that `rate_key` names; None if this card has no such."""
        return next(
            (
                (row, bracket.rate)
                for row in self.rows.values()
                if rate_key.startswith(f"{row.model}/")
                for tier, brackets in row.tiers.items()
                for bracket in brackets
                if _key(row, tier, bracket) == rate_key
            ),
            None,
        )

    def is_no_dearer(self, row: ModelRates, service_tier: str | None, auto_tier: str, model: str) -> bool:
        """Whether `model`, in the default tier if one was asked for, sells no token for more than `row` does so."""
        other = self.find(model)
        if other is None:
            return False
        other_asked = None if service_tier in (None, "auto") else DEFAULT_TIER
        try:
            brackets = row.brackets(served_tier(row, service_tier, auto_tier))
            others = other.brackets(served_tier(other, other_asked, auto_tier))
        except UnsoldTier:
            return False
        steps = [each.input_tokens_min for each in brackets + others]
        return all(_is_no_dearer(_in(others, step).rate, _in(brackets, step).rate) for step in steps)

    def _exact(self, model: str) -> ModelRates | None:
        return self.rows.get(self.aliases.get(model, model))

    def rate(self, row: ModelRates, service_tier: str | None, input_tokens: int) -> Rate:
        """Return the rate of a call of `input_tokens` (all classes); raises `UnsoldTier`, never falls back."""
        return _bracket(row, service_tier, input_tokens).rate

    def rate_and_key(self, row: ModelRates, service_tier: str | None, input_tokens: int) -> tuple[Rate, str]:
        """Return `rate` and `rate_key` of a call."""
        bracket = _bracket(row, service_tier, input_tokens)
        return bracket.rate, _key(row, service_tier, bracket)

    def rate_key(self, row: ModelRates, service_tier: str | None, input_tokens: int) -> str:
        """Name the row and column that `rate` picks: "gpt-5.4/flex", or "gpt-5.4/flex/272001" for a long context."""
        return _key(row, service_tier, _bracket(row, service_tier, input_tokens))


def priced_tier(service_tier: str | None, auto_tier: str = DEFAULT_TIER) -> str:
    """Return the tier that prices a call which asked for, or was served in, `service_tier`; raises `UnsoldTier`.

    None and "auto" mean what the upstream project is set to: `auto_tier`.

    >>> priced_tier(None), priced_tier("fast"), priced_tier("auto", auto_tier="flex")
    ('default', 'priority', 'flex')
    """
    name = auto_tier if service_tier is None or service_tier == "auto" else service_tier
    tier = PRICED_TIERS.get(name)
    if tier is None:
        raise UnsoldTier(f"service tier {name[:64]!r} is not sold")
    return tier


def served_tier(row: ModelRates, service_tier: str | None, auto_tier: str) -> str:
    """The tier of a call by its own wish or the project's, which holds only where the model has that tier."""
    tier = priced_tier(service_tier, auto_tier)
    return DEFAULT_TIER if service_tier in (None, "auto") and tier not in row.tiers else tier


def _ceiling(bracket: Bracket) -> Ceiling:
    rate = bracket.rate
    return Ceiling(
        bracket.input_tokens_min,
        max(rate.input, rate.input_cached, rate.input_cache_write, rate.input_audio, rate.input_image),
        max(rate.output, rate.output_reasoning, rate.output_audio, rate.output_image),
    )


def _key(row: ModelRates, service_tier: str | None, bracket: Bracket) -> str:
    key = f"{row.model}/{priced_tier(service_tier)}"
    return f"{key}/{bracket.input_tokens_min}" if bracket.input_tokens_min else key


def _bracket(row: ModelRates, service_tier: str | None, input_tokens: int) -> Bracket:
    return _in(row.brackets(priced_tier(service_tier)), input_tokens)


def _in(brackets: tuple[Bracket, ...], input_tokens: int) -> Bracket:
    if len(brackets) == 1:
        return brackets[0]
    return next(bracket for bracket in reversed(brackets) if bracket.input_tokens_min <= input_tokens)


def _is_no_dearer(rate: Rate, than: Rate) -> bool:
    return rate.input <= than.input and rate.input_cached <= than.input_cached and rate.output <= than.output


class Price(msgspec.Struct, frozen=True, gc=False):
    """What a call costs; `rounding` is the part of `cost` above the exact price (0 in mode `exact`)."""

    cost: MicroCredits
    rounding: MicroCredits


def cost_exact(usage: Usage, rate: Rate) -> MicroCredits:
    """Return the cost in µcr of `usage` under `rate` (µcr per million tokens), rounded once, half up.

    >>> rate = Rate(150_000_000, 75_000_000, 150_000_000, 0, 0, 600_000_000, 600_000_000, 0, 0)
    >>> cost_exact(Usage(input=600, input_cached=400, output=10), rate)
    126000
    """
    return divide_half_up(millionths(usage, rate), TOKENS_PER_RATE)


def millionths(usage: Usage, rate: Rate) -> int:
    """The exact cost of `usage`, in millionths of a µcr."""
    return (
        usage.input * rate.input
        + usage.input_cached * rate.input_cached
        + usage.input_cache_write * rate.input_cache_write
        + usage.input_audio * rate.input_audio
        + usage.input_image * rate.input_image
        + usage.output * rate.output
        + usage.output_reasoning * rate.output_reasoning
        + usage.output_audio * rate.output_audio
        + usage.output_image * rate.output_image
    )


def price(usage: Usage, rate: Rate, rounding: Rounding) -> Price:
    """Price one call: exactly to the µcr, or up to a whole credit, with what the rounding added kept apart.

    >>> rate = Rate(150_000_000, 75_000_000, 150_000_000, 0, 0, 600_000_000, 600_000_000, 0, 0)
    >>> price(Usage(input=600, input_cached=400, output=10), rate, Rounding.CEIL)
    Price(cost=1000000, rounding=874000)
    """
    exact = cost_exact(usage, rate)
    if rounding is Rounding.EXACT:
        return Price(exact, 0)
    cost = -(-exact // UCR_PER_CREDIT) * UCR_PER_CREDIT
    return Price(cost, cost - exact)
