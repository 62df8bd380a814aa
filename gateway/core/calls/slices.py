"""Slices: a long stream is held piece by piece, so that a small balance can run it as far as it reaches.

What is held always covers the input and all output that was let through; before more passes, more is held. Pure: when
a slice is to be had, how large it is, and what it costs to hold. `proxy/slicing.py` acts on it.
"""

from fnmatch import fnmatchcase

import msgspec

from gateway.core.calls.calls import Call, Endpoint
from gateway.core.calls.content import glance
from gateway.core.calls.estimate import (
    TOKENS_OF_FRAME,
    TOKENS_OF_TOOLS,
    Estimate,
    affordable_output_limit,
    estimate_part,
)
from gateway.core.money import MicroCredits
from gateway.core.pricing.rates import DEFAULT_TIER, ModelRates, RateCard

_STREAMS = (Endpoint.CHAT, Endpoint.RESPONSES)


class Sizes(msgspec.Struct, frozen=True):
    """How slices are cut; tokens of output, of all choices together."""

    models: tuple[str, ...]  # or patterns: whose output all shows, so that it can be followed
    output_tokens: int  # of one slice
    output_tokens_min: int  # what is less is no slice: the answer ends
    ahead_tokens: int  # when so little is left of a slice, the next one is asked for


class Sliced(msgspec.Struct, frozen=True):
    """A call that is held slice by slice. `covered` is the output that its hold pays for."""

    call: Call
    row: ModelRates
    card: RateCard
    whole: Estimate
    sizes: Sizes
    auto_tier: str = DEFAULT_TIER

    @property
    def hidden_tokens(self) -> int:
        """What upstream may bill beside the text it shows: the frames of its answers and of calls to tools."""
        return TOKENS_OF_FRAME * self.call.choices + (TOKENS_OF_TOOLS if self.call.extras else 0)

    def estimate(self, covered: int) -> Estimate:
        """The hold that covers so much output."""
        return estimate_part(self.whole, self.row, self.card, covered)

    def next(self, covered: int) -> int:
        """What is to be covered after the next slice."""
        return min(covered + self.sizes.output_tokens, self.whole.output_tokens_max)

    def first(self, amount: MicroCredits) -> int:
        """What is to be covered at first with so much to hold; 0 if that is no slice."""
        return min(self.next(0), self.fitting(amount, 0))

    def fitting(self, amount: MicroCredits, covered: int) -> int:
        """How much output a hold of `amount` would cover; 0 if that is no slice more than `covered`."""
        limit = affordable_output_limit(amount, self.whole, self.call, self.row, self.card, auto_tier=self.auto_tier)
        fitting = min(limit * self.call.choices, self.whole.output_tokens_max)
        return fitting if fitting - covered >= max(self.sizes.output_tokens_min, self.hidden_tokens + 1) else 0

    def covers(self, covered: int, delivered: int) -> bool:
        """Whether so much output may have been delivered. A hold of the whole bounds nothing, as of any call."""
        return covered >= self.whole.output_tokens_max or delivered + self.hidden_tokens <= covered

    def wants_more(self, covered: int, delivered: int) -> bool:
        """Whether it is time to ask for the next slice, so that the stream need not wait for it."""
        return not self.covers(covered, delivered + self.sizes.ahead_tokens)


def slices_of(
    call: Call, row: ModelRates, card: RateCard, whole: Estimate, sizes: Sizes, *, auto_tier: str = DEFAULT_TIER
) -> Sliced | None:
    """How `call` is held in slices; None if it must be held whole.

    A document comes at once. What is made unseen, as reasoning is, or is billed without being made, as a rejected
    prediction, cannot be followed. And a call that is no longer than a slice needs none.
    """
    if not call.stream or call.endpoint not in _STREAMS or whole.output_tokens_max <= sizes.output_tokens:
        return None
    if not any(fnmatchcase(row.model, pattern) for pattern in sizes.models) or glance(call).prediction_bytes:
        return None
    return Sliced(call, row, card, whole, sizes, auto_tier)
