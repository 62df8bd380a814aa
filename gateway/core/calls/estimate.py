"""Estimates: the most a call can cost, derived so that an honest upstream's usage never costs more than was held.

Every size is bounded from above and priced at the dearest rate that the call can reach: the dearest class of tokens,
the asked service tier or the default one, every long-context bracket up to the bound.
"""

from enum import StrEnum

import msgspec

from gateway.core.calls.calls import Call, Endpoint
from gateway.core.calls.content import Content, glance, read
from gateway.core.calls.usage import AbsurdUsage, Usage
from gateway.core.money import AMOUNT_UCR_MAX, UCR_PER_CREDIT, MicroCredits
from gateway.core.pricing.rates import (
    DEFAULT_TIER,
    TOKENS_PER_RATE,
    Ceiling,
    ModelRates,
    Price,
    RateCard,
    Rounding,
    price,
    served_tier,
)

# Tokens that the upstream adds by itself. Each is far less than the JSON around what it frames, but an exact count has
# no JSON to hide behind: 3 or 4 a message, 3 before the answer, and a preamble before tools and answer formats.
# Source: "How to count tokens with tiktoken" in OpenAI's cookbook, with room to spare.
TOKENS_PER_OBJECT = 8
TOKENS_OF_FRAME = 16
TOKENS_OF_TOOLS = 128

# Beyond this many times every bound a report is not an overrun but nonsense.
ABSURD_FACTOR = 2


class Basis(StrEnum):
    """What the input bound of an estimate was derived from."""

    BYTES = "bytes"  # of the body
    PARTS = "parts"  # bytes of text, and rules for images and audio
    TOKENS = "tokens"  # counted
    CONTEXT = "context"  # the model's context window


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """The most a call can cost, with the bounds it was priced at."""

    amount: MicroCredits
    input_tokens_max: int
    output_tokens_max: int  # of all choices together
    basis: Basis
    tier: str = DEFAULT_TIER  # that the call is served in, unless its answer names another


def estimate_cheap(call: Call, row: ModelRates, card: RateCard, *, auto_tier: str = DEFAULT_TIER) -> Estimate:
    """Bound the cost of `call` without a tokenizer; raises `UnsoldTier`.

    The bytes of the body are at least its text tokens: every token of a byte-level vocabulary is one or more bytes of
    UTF-8, and JSON only makes text longer. What chat templates add to a message is less than the JSON around it.
    """
    content = glance(call)
    tokens, basis = _input_bound(call, row, content, len(call.body) - content.media_bytes)
    return _estimate(call, row, card, content, tokens, basis, auto_tier)


def texts_to_count(call: Call) -> list[str]:
    """The strings of a call's input, for the tokenizer; `estimate_exact` takes the sum of their tokens."""
    return list(read(call).texts)


def estimate_exact(
    call: Call, row: ModelRates, card: RateCard, text_tokens: int, *, auto_tier: str = DEFAULT_TIER
) -> Estimate:
    """Bound the cost of `call`, given the tokens of `texts_to_count`; never above the cheap bound.

    Tools and formats still count by their bytes, since how the upstream writes them out for the model is not public.
    """
    content = read(call)
    cheap, cheap_basis = _input_bound(call, row, glance(call), len(call.body) - content.media_bytes)
    text = text_tokens + content.scalars + TOKENS_PER_OBJECT * content.objects + sum(map(len, call.extras))
    tokens, basis = _input_bound(call, row, content, text)
    if basis is Basis.CONTEXT or tokens >= cheap:
        tokens, basis = cheap, cheap_basis
    else:
        basis = Basis.TOKENS
    return _estimate(call, row, card, content, tokens, basis, auto_tier)


def estimate_limited(
    estimate: Estimate, call: Call, row: ModelRates, card: RateCard, *, auto_tier: str = DEFAULT_TIER
) -> Estimate:
    """Bound the cost of `call`, whose output limit was lowered since `estimate`; its input is what it was."""
    return _estimate(call, row, card, glance(call), estimate.input_tokens_max, estimate.basis, auto_tier)


def estimate_part(estimate: Estimate, row: ModelRates, card: RateCard, output_tokens: int) -> Estimate:
    """Bound the cost of a call up to `output_tokens` of its choices together; the rest is as in `estimate`."""
    return _bounded(row, card, estimate.tier, estimate.input_tokens_max, output_tokens, estimate.basis)


def affordable_output_limit(
    available: MicroCredits,
    estimate: Estimate,
    call: Call,
    row: ModelRates,
    card: RateCard,
    *,
    auto_tier: str = DEFAULT_TIER,
) -> int:
    """Return the largest output limit per choice with which `call` would fit into `available` µcr; 0 if none would."""
    if row.output_tokens_max == 0 or available <= 0:
        return 0
    if card.rounding is Rounding.CEIL:
        available -= available % UCR_PER_CREDIT
    limit, prediction = row.output_tokens_max, glance(call).prediction_bytes
    for least, dearest_in, dearest_out in _ceilings(row, served_tier(row, call.service_tier, auto_tier)):
        if least > estimate.input_tokens_max:
            continue
        left = available * TOKENS_PER_RATE - estimate.input_tokens_max * dearest_in
        if left < 0:
            return 0
        if dearest_out:
            limit = min(limit, left // (dearest_out * call.choices) - prediction)
    return max(0, limit)


def provisional_cost(
    card: RateCard, row: ModelRates, service_tier: str | None, input_tokens: int, output_tokens: int
) -> Price:
    """Price tokens that were counted here, not reported: for running progress and for `estimated` outcomes.

    All are priced as plain text, neither cached nor reasoning, which is never above the hold. Raises `UnsoldTier`.
    """
    rate = card.rate(row, service_tier, input_tokens)
    return price(Usage(input=input_tokens, output=output_tokens), rate, card.rounding)


def plausible(usage: Usage, estimate: Estimate, row: ModelRates) -> None:
    """Raise `AbsurdUsage` if `usage` is beyond twice what the model can read or was allowed to write.

    An overrun within that is real and charged; embeddings of many inputs may pass one context window.
    """
    input_max = ABSURD_FACTOR * max(row.context_tokens, estimate.input_tokens_max)
    output_max = ABSURD_FACTOR * max(row.output_tokens_max, estimate.output_tokens_max)
    if usage.input_total > input_max:
        raise AbsurdUsage(f"{usage.input_total} input tokens reported; at most {input_max} can be true")
    if usage.output_total > output_max:
        raise AbsurdUsage(f"{usage.output_total} output tokens reported; at most {output_max} can be true")


def _input_bound(call: Call, row: ModelRates, content: Content, text_tokens: int) -> tuple[int, Basis]:
    """Bound the input tokens, given a bound of those of its text."""
    tokens = text_tokens + TOKENS_OF_FRAME + (TOKENS_OF_TOOLS if call.extras else 0)
    if call.endpoint in (Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS):
        return tokens, Basis.BYTES  # each of many inputs may fill a context window
    if call.unknown_context or content.opaque:
        return row.context_tokens, Basis.CONTEXT
    tokens += content.images * row.image_tokens_max + content.audio_tokens
    if tokens >= row.context_tokens:
        return row.context_tokens, Basis.CONTEXT
    return tokens, Basis.PARTS if content.images or content.audio_tokens else Basis.BYTES


def _output_bound(call: Call, row: ModelRates, content: Content) -> int:
    """Bound the output tokens of all choices. Rejected predictions are billed beside the limit."""
    limit = call.output_limit_upstream
    asked = row.output_tokens_max if limit is None else min(limit, row.output_tokens_max)
    return call.choices * (asked + (content.prediction_bytes if row.output_tokens_max else 0))


def _estimate(
    call: Call, row: ModelRates, card: RateCard, content: Content, input_tokens: int, basis: Basis, auto_tier: str
) -> Estimate:
    return _bounded(
        row,
        card,
        served_tier(row, call.service_tier, auto_tier),
        input_tokens,
        _output_bound(call, row, content),
        basis,
    )


def _bounded(
    row: ModelRates, card: RateCard, tier: str, input_tokens: int, output_tokens: int, basis: Basis
) -> Estimate:
    millionths = 0
    for least, dearest_in, dearest_out in _ceilings(row, tier):
        if least <= input_tokens:
            millionths = max(millionths, input_tokens * dearest_in + output_tokens * dearest_out)
    unit = UCR_PER_CREDIT if card.rounding is Rounding.CEIL else 1
    amount = -(-millionths // (TOKENS_PER_RATE * unit)) * unit
    # A call of a million prompts can pass what Lua compares exactly; no balance is as large, so it is refused anyhow.
    return Estimate(min(amount, AMOUNT_UCR_MAX), input_tokens, output_tokens, basis, tier)


def _ceilings(row: ModelRates, tier: str) -> tuple[Ceiling, ...]:
    row.brackets(tier)
    return row.ceilings[tier]
