"""Prices worked out from upstream's own log, without the gateway's meter and without its arithmetic."""

import json
from fractions import Fraction
from math import floor
from typing import Any

from gateway.core.pricing.rates import RateCard
from gateway.sandbox.openai import LogEntry, TokenCounts

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"

ASKS: dict[str, dict[str, Any]] = {
    CHAT: {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 100},
    COMPLETIONS: {"model": "gpt-3.5-turbo-instruct", "prompt": ["Say hello.", "Again."], "max_tokens": 100},
    RESPONSES: {"model": "gpt-5-mini", "input": "Say hello.", "max_output_tokens": 400},
    EMBEDDINGS: {"model": "text-embedding-3-small", "input": ["Say hello.", "Again."]},
}


def ask_of(endpoint: str, **fields: Any) -> bytes:
    """A body for `endpoint`."""
    return json.dumps(ASKS[endpoint] | fields).encode()


def price_of(card: RateCard, entry: LogEntry) -> int:
    """What a call costs in µcr that upstream served as its log says."""
    return price_of_counts(card, entry.served_model, entry.tier, entry.usage)


def price_of_counts(card: RateCard, model: str, tier: str, counts: TokenCounts) -> int:
    row = card.find(model)
    assert row is not None
    brackets = row.tiers["default" if tier in ("", "scale") else tier]
    rate = [bracket.rate for bracket in brackets if bracket.input_tokens_min <= counts.prompt][-1]
    details = counts.cached + counts.cache_write + counts.prompt_audio + counts.prompt_image
    millionths = (
        (counts.prompt - details) * rate.input
        + counts.cached * rate.input_cached
        + counts.cache_write * rate.input_cache_write
        + counts.prompt_audio * rate.input_audio
        + counts.prompt_image * rate.input_image
        + (counts.completion - counts.reasoning - counts.completion_audio) * rate.output
        + counts.reasoning * rate.output_reasoning
        + counts.completion_audio * rate.output_audio
    )
    return floor(Fraction(millionths, 1_000_000) + Fraction(1, 2))
