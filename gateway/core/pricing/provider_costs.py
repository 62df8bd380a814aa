"""What calls cost at the provider, from their usage: a rate card's rates are the provider's prices times a markup.

Usage may be summed over calls of one rate, so a day costs one sum a model instead of an entry a call; each sum is
exact until it is rounded, once.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction

import msgspec

from gateway.core.calls.usage import Usage
from gateway.core.money import MicroCredits
from gateway.core.pricing.rates import TOKENS_PER_RATE, RateCard, millionths


class Consumption(msgspec.Struct, frozen=True):
    """Calls of one model under one rate, summed."""

    model: str  # as asked
    rate_version: str
    rate_key: str  # "" where no rate priced them: a lapse, or a hold that was kept
    calls: int
    charged: MicroCredits
    unrated: MicroCredits  # the part of what was charged that no usage stands for (≤ 0: what a correction gave back)
    usage: Usage
    shadow: MicroCredits = 0  # what callers would have been charged who are billed in shadow only


class ModelCost(msgspec.Struct, frozen=True):
    """A model's calls of a day: what customers were charged, and what the provider costs us."""

    model: str
    calls: int
    charged: MicroCredits
    cost: MicroCredits
    usage: Usage
    shadow: MicroCredits = 0

    @property
    def priced(self) -> MicroCredits:
        """What was charged, or would have been."""
        return self.charged + self.shadow

    @property
    def margin_percent(self) -> int | None:
        """What was charged or would have been, in percent of its cost, rounded down; None where there is no cost."""
        return self.priced * 100 // self.cost if self.cost > 0 else None


class CostUnknown(LookupError):
    """No recorded rate card says what these calls cost at the provider."""


def costs_by_model(consumed: Iterable[Consumption], cards: Mapping[str, RateCard]) -> list[ModelCost]:
    """The costs by model as the cards name it, in order; raises `CostUnknown` rather than leave one out."""
    exact: dict[str, Fraction] = {}
    sums: dict[str, ModelCost] = {}
    for part in consumed:
        if not part.calls and not part.charged and not part.unrated and part.usage == Usage():
            continue
        model, cost = _cost(part, cards)
        before = sums.get(model, ModelCost(model, 0, 0, 0, Usage()))
        exact[model] = exact.get(model, Fraction(0)) + cost
        sums[model] = ModelCost(
            model,
            before.calls + part.calls,
            before.charged + part.charged,
            0,
            _plus(before.usage, part.usage),
            before.shadow + part.shadow,
        )
    return [msgspec.structs.replace(sums[model], cost=round(exact[model])) for model in sorted(sums)]


def _cost(part: Consumption, cards: Mapping[str, RateCard]) -> tuple[str, Fraction]:
    card = cards.get(part.rate_version)
    if card is None:
        if part.charged == 0 and part.unrated == 0 and part.usage == Usage():
            return part.model, Fraction(0)
        raise CostUnknown(f"rate card {part.rate_version} is not recorded")
    named = card.rate_named(part.rate_key) if part.rate_key else None
    row = named[0] if named else card.find(part.model)
    if part.rate_key and named is None:
        raise CostUnknown(f"rate card {part.rate_version} has no rate {part.rate_key}")
    charged = Fraction(millionths(part.usage, named[1]), TOKENS_PER_RATE) if named else Fraction(0)
    charged += part.unrated
    if row is None or row.markup is None:
        if charged == 0:
            return part.model, Fraction(0)
        raise CostUnknown(f"rate card {part.rate_version} names no markup for {part.model}")
    return row.model, charged / Fraction(row.markup)


def _plus(one: Usage, other: Usage) -> Usage:
    return Usage(*(getattr(one, name) + getattr(other, name) for name in Usage.__struct_fields__))
