"""What a call is priced by: the card row it asked for, its hold, and what it came to. Awaits only the tokenizer."""

import msgspec

from gateway.adapters.tokens import Tokenizer
from gateway.core.calls import Call
from gateway.core.endings import Charge, Ended, Ending
from gateway.core.estimate import Estimate, texts_to_count
from gateway.core.holds import Flag, Settlement, Terms
from gateway.core.rates import ModelRates, Price, RateCard, price
from gateway.core.usage import Usage
from gateway.proxy.watch import Watch


class Priced(msgspec.Struct, frozen=True):
    """A call with the row and the bound it is held under."""

    call: Call
    row: ModelRates
    estimate: Estimate
    terms: Terms
    request_id: str


async def settlement_of(
    priced: Priced, ended: Ended, ending: Ending, card: RateCard, watch: Watch, tokenizer: Tokenizer, now_ms: int
) -> Settlement:
    """Turn how a call ended into what is posted. The price is that of the card the hold was opened under."""
    held = priced.estimate.amount
    usage, flags = ending.usage, list(ending.flags)
    row, rate_key, is_priced = _served_row(priced, ended, card)
    cost, rate_used = Price(0, 0), ""
    match ending.charge:
        case Charge.HELD:
            cost = Price(held, 0)
        case Charge.USAGE | Charge.DELIVERED:
            if ending.charge is Charge.DELIVERED:
                usage = await count_delivered(priced, watch, tokenizer)
            tier = served_tier(priced, ended)
            cost = price(usage, card.rate(row, tier, usage.input_total), card.rounding)
            rate_used = rate_key
            if not is_priced:
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
        rate_key=rate_used,
        flags=tuple(flags),
        status=ended.status,
        upstream_request_id=ended.upstream_request_id,
    )


def served_tier(priced: Priced, ended: Ended) -> str:
    return ended.reading.service_tier or priced.call.service_tier or "default"


def _served_row(priced: Priced, ended: Ended, card: RateCard) -> tuple[ModelRates, str, bool]:
    """The row of the model that was served, which an alias or the upstream's routing may make another than asked."""
    served = ended.reading.model
    row = card.find(served) if served and served != priced.call.model else priced.row
    chosen = row or priced.row
    return chosen, f"{chosen.model}/{served_tier(priced, ended)}", row is not None


async def count_delivered(priced: Priced, watch: Watch, tokenizer: Tokenizer) -> Usage:
    """Count what was sent and what was delivered, with the tokenizer: what an answer without usage is charged."""
    sent = await tokenizer.count(priced.call.model, texts_to_count(priced.call))
    made_tokens = await watch.delivered_tokens()
    return Usage(input=min(sent.tokens, priced.estimate.input_tokens_max), output=made_tokens)
