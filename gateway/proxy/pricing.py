"""What a call is priced by: the card row it asked for, its hold, and what it came to. Awaits only the tokenizer."""

import msgspec

from gateway.adapters.openai.tokens import BYTES_PER_TOKEN_ABOUT, Tokenizer
from gateway.core.calls.calls import Call
from gateway.core.calls.endings import Charge, Ended, Ending
from gateway.core.calls.estimate import Estimate, provisional_cost, texts_to_count
from gateway.core.calls.usage import Usage
from gateway.core.holds import Flag, Outcome, Settlement, Terms
from gateway.core.pricing.rates import ModelRates, Price, RateCard, UnsoldTier, price
from gateway.proxy.leases import Progress
from gateway.proxy.watch import Watch, count_tokens

NOTHING = Price(0, 0)


class Priced(msgspec.Struct, frozen=True, gc=False):
    """A call with the card row and the bound it is held under."""

    request_id: str
    call: Call
    card: RateCard
    row: ModelRates
    estimate: Estimate
    terms: Terms


def progress_of(priced: Priced, watch: Watch) -> Progress:
    """What the call has cost so far, about: what a lapse of its hold would charge."""
    input_tokens = min(len(priced.call.body) // BYTES_PER_TOKEN_ABOUT + 1, priced.estimate.input_tokens_max)
    output_tokens = watch.output_tokens_about
    if output_tokens == 0:
        return 0, Usage()
    cost = provisional_cost(priced.card, priced.row, priced.estimate.tier, input_tokens, output_tokens).cost
    return cost, Usage(input=input_tokens, output=output_tokens)


def settlement_of(priced: Priced, ended: Ended, ending: Ending, usage: Usage, now_ms: int) -> Settlement:
    """Turn how a call ended into what is posted. The price is that of the card the hold was opened under.

    `usage` is that of the ending, or what `count_delivered` found.
    """
    held = priced.estimate.amount
    cost, rate_key, flags = NOTHING, "", ending.flags
    outcome = ending.outcome
    if ending.charge is Charge.HELD:
        cost = Price(held, 0)
    elif ending.charge is not Charge.NOTHING:
        priced_as_served = _price_as_served(priced, ended, usage)
        if priced_as_served is None:
            flags = (*flags, Flag.UNPRICED)
            outcome, cost = Outcome.ESTIMATED, Price(held, 0)
        else:
            cost, rate_key = priced_as_served
    if cost.cost > held:
        flags = (*flags, Flag.OVERRUN)
    return Settlement(
        request_id=priced.request_id,
        terms=priced.terms,
        outcome=outcome,
        held=held,
        cost=cost.cost,
        rounding=cost.rounding,
        event_at_ms=now_ms,
        usage=usage,
        rate_key=rate_key,
        flags=flags,
        status=ended.status,
        upstream_request_id=ended.upstream_request_id,
    )


def _price_as_served(priced: Priced, ended: Ended, usage: Usage) -> tuple[Price, str] | None:
    """Price by the model and tier that were served, as upstream bills it; None if the card has no such price."""
    card, served = priced.card, ended.reading.model
    row = priced.row if served in ("", priced.call.model) else card.find(served)
    if row is None:
        return None
    said = ended.reading.service_tier
    tier = priced.estimate.tier if said in (None, "", "auto") else said
    try:
        rate, key = card.rate_and_key(row, tier, usage.input_total)
    except UnsoldTier:
        return None
    return price(usage, rate, card.rounding), key


async def count_delivered(priced: Priced, watch: Watch, tokenizer: Tokenizer) -> Usage:
    """Count what was sent and what was delivered, with the tokenizer: what an answer without usage is charged."""
    sent_tokens = await count_tokens(tokenizer, priced.call.model, texts_to_count(priced.call))
    made_tokens = await watch.delivered_tokens()
    return Usage(input=min(sent_tokens, priced.estimate.input_tokens_max), output=made_tokens)
