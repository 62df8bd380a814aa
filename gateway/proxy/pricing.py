"""What a call is priced by: the card row it asked for, its hold, and what it came to. Awaits only the tokenizer."""

import msgspec

from gateway.adapters.tokens import Tokenizer
from gateway.core.calls import Call
from gateway.core.endings import Charge, Ended, Ending
from gateway.core.estimate import Estimate, provisional_cost, texts_to_count
from gateway.core.holds import Flag, Settlement, Terms
from gateway.core.rates import DEFAULT_TIER, ModelRates, Price, RateCard, UnsoldTier, price
from gateway.core.usage import Usage
from gateway.proxy.leases import Progress
from gateway.proxy.watch import BYTES_PER_TOKEN_ABOUT, Watch, count_tokens


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
    tier = priced.call.service_tier
    cost = provisional_cost(priced.card, priced.row, tier, input_tokens, output_tokens).cost
    return cost, Usage(input=input_tokens, output=output_tokens)


async def settlement_of(
    priced: Priced, ended: Ended, ending: Ending, watch: Watch, tokenizer: Tokenizer, now_ms: int
) -> Settlement:
    """Turn how a call ended into what is posted. The price is that of the card the hold was opened under."""
    held = priced.estimate.amount
    usage, cost, rate_key, flags = ending.usage, Price(0, 0), "", list(ending.flags)
    if ending.charge is Charge.HELD:
        cost = Price(held, 0)
    elif ending.charge is not Charge.NOTHING:
        if ending.charge is Charge.DELIVERED:
            usage = await _count_delivered(priced, watch, tokenizer)
        cost, rate_key, is_sold = _price_as_served(priced, ended, usage)
        if not is_sold:
            flags.append(Flag.UNPRICED)
    if cost.cost > held:
        flags.append(Flag.OVERRUN)
    return Settlement(
        request_id=priced.request_id,
        terms=priced.terms,
        outcome=ending.outcome,
        held=held,
        cost=cost.cost,
        rounding=cost.rounding,
        event_at_ms=now_ms,
        usage=usage,
        rate_key=rate_key,
        flags=tuple(flags),
        status=ended.status,
        upstream_request_id=ended.upstream_request_id,
    )


def _price_as_served(priced: Priced, ended: Ended, usage: Usage) -> tuple[Price, str, bool]:
    """Price by the model and tier that were served; by those that were asked for where the card does not sell them."""
    card, row = priced.card, priced.row
    served = ended.reading.model
    served_row = row if served in ("", priced.call.model) else card.find(served)
    asked_tier = priced.call.service_tier
    choices = [(row, asked_tier), (row, DEFAULT_TIER)]
    if served_row is not None:
        choices.insert(0, (served_row, ended.reading.service_tier or asked_tier))
    for position, (chosen, tier) in enumerate(choices):
        try:
            rate = card.rate(chosen, tier, usage.input_total)
        except UnsoldTier:
            continue
        is_sold = position == 0 and served_row is not None
        return price(usage, rate, card.rounding), card.rate_key(chosen, tier, usage.input_total), is_sold
    raise AssertionError("every row is sold in the default tier")


async def _count_delivered(priced: Priced, watch: Watch, tokenizer: Tokenizer) -> Usage:
    """Count what was sent and what was delivered, with the tokenizer: what an answer without usage is charged."""
    sent_tokens = await count_tokens(tokenizer, priced.call.model, texts_to_count(priced.call))
    made_tokens = await watch.delivered_tokens()
    return Usage(input=min(sent_tokens, priced.estimate.input_tokens_max), output=made_tokens)
