"""Rate cards: what a token of each class costs, and the one place where usage becomes money.

A card is dated, versioned by the hash of its text and never changed: a hold is settled under the version it was opened
under. Rates are whole µcr per million tokens, so a price is exact until it is rounded, once per call.
"""

from enum import StrEnum

import msgspec

from gateway.core.money import UCR_PER_CREDIT, MicroCredits, divide_half_up
from gateway.core.usage import Usage

TOKENS_PER_RATE = 1_000_000


class Rate(msgspec.Struct, frozen=True):
    """µcr per million tokens for each class of `Usage`; every class is written out, so no fallback happens at pricing."""

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


class ModelRates(msgspec.Struct, frozen=True):
    """One model's row: brackets for each service tier, ascending; plus the bounds an estimate needs."""

    model: str
    tiers: dict[str, tuple[Bracket, ...]]  # "default" always; "flex", "priority" where sold
    context_tokens: int  # the largest input
    output_tokens_max: int  # the largest output of one choice; 0 for embeddings


class Rounding(StrEnum):
    EXACT = "exact"  # to the µcr, half up
    CEIL = "ceil"  # up to a whole credit


class Price(msgspec.Struct, frozen=True):
    """What a call costs; `rounding` is the part of `cost` above the exact price (0 in mode `exact`)."""

    cost: MicroCredits
    rounding: MicroCredits


def cost_exact(usage: Usage, rate: Rate) -> MicroCredits:
    """Return the cost in µcr of `usage` under `rate` (µcr per million tokens), rounded once, half up.

    >>> rate = Rate(150_000_000, 75_000_000, 150_000_000, 0, 0, 600_000_000, 600_000_000, 0, 0)
    >>> cost_exact(Usage(input=600, input_cached=400, output=10), rate)
    126000
    """
    return divide_half_up(_millionths(usage, rate), TOKENS_PER_RATE)


def _millionths(usage: Usage, rate: Rate) -> int:
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
