"""Reported usage: what a trusted service made elsewhere, and what it costs. Pure."""

import hashlib

import msgspec

from gateway.core.calls.usage import AbsurdUsage, ReportedUsage, Usage, disjoint
from gateway.core.errors import InvalidRequest, ModelNotFound
from gateway.core.money import MicroCredits
from gateway.core.pricing.rates import ModelRates, RateCard, UnsoldTier, price

# Beyond any call there is; it keeps a price far below what can be counted exactly.
TOKENS_MAX = 1_000_000_000


class Reported(msgspec.Struct, frozen=True, omit_defaults=True):
    """Usage and its price, by the card that was in force when it was first reported."""

    model: str  # of the card
    usage: Usage
    rate_version: str
    rate_key: str
    cost: MicroCredits
    rounding: MicroCredits = 0


def price_report(
    card: RateCard, model: str, service_tier: str | None, usage: ReportedUsage, auto_tier: str
) -> Reported:
    """Raises `ModelNotFound`, and `InvalidRequest` for usage that no call can have."""
    row = card.find(model)
    if row is None:
        raise ModelNotFound(f"The model {model[:128]!r} does not exist or has no price here.", param="model")
    _require_unambiguous(usage, row)
    try:
        consumed = disjoint(usage)
    except AbsurdUsage as error:
        raise InvalidRequest(f"usage: {error}.", param="usage") from error
    if not 0 < consumed.input_total + consumed.output_total <= TOKENS_MAX:
        raise InvalidRequest(f"usage is of 1 to {TOKENS_MAX} tokens.", param="usage")
    try:
        tier = auto_tier if service_tier in (None, "auto") else service_tier
        rate, rate_key = card.rate_and_key(row, tier, consumed.input_total)
    except UnsoldTier as error:
        raise InvalidRequest(str(error), param="serviceTier") from error
    cost = price(consumed, rate, card.rounding)
    return Reported(row.model, consumed, card.version, rate_key, cost.cost, cost.rounding)


def _require_unambiguous(usage: ReportedUsage, row: ModelRates) -> None:
    """Raise `InvalidRequest` for usage that would be charged for in part: nobody looks at it once more."""
    given = {name for name in usage.__struct_fields__ if getattr(usage, name) is not None}
    of_responses = {name for name in given if name.startswith(("input", "output"))}
    if of_responses and given - of_responses:
        raise InvalidRequest("usage counts in prompt_tokens or in input_tokens, not in both.", param="usage")
    if row.output_tokens_max and given.isdisjoint({"completion_tokens", "output_tokens"}):
        raise InvalidRequest("usage names no completion_tokens or output_tokens; 0 if there are none.", param="usage")


def fingerprint_of(asked: msgspec.Struct) -> bytes:
    """Equal for equal reports, however their JSON was written."""
    return hashlib.sha256(msgspec.json.encode(asked)).digest()
