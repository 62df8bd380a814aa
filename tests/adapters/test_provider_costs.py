"""What OpenAI costs: a day's calls at its prices, once; bills book the difference; the poster books nothing of it."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from gateway.adapters.postgres.provider_costs import BillRefused, ProviderCosts
from gateway.core.accounting.ledger import Bucket
from gateway.core.calls.usage import Usage
from gateway.core.holds import Outcome, Phase, Settlement
from gateway.core.pricing.provider_costs import CostUnknown
from gateway.core.pricing.rate_card import load_card
from gateway.core.pricing.rates import RateCard, price
from gateway.resources import shipped
from tests.books import Books, end_fields, lapse_fields, now_ms, settlement

MODEL = "gpt-4o-mini"
TODAY = datetime.now(UTC).date()
TOMORROW_MS = now_ms() + 86_400_000 * 2


@pytest.fixture
def costs(books: Books) -> ProviderCosts:
    """As of the day after tomorrow, so that today is over."""
    return ProviderCosts(books.pool, books.ledger, now_ms=lambda: TOMORROW_MS)


@pytest.fixture
async def card(books: Books) -> RateCard:
    text = max((shipped("config") / "rates").glob("*.toml")).read_text()
    card = load_card(text, "test-card")
    await books.accounts.record_card(card, text)
    return card


def priced(account_id: str, card: RateCard, usage: Usage) -> Settlement:
    row = card.rows[MODEL]
    cost = price(usage, card.rate(row, None, usage.input_total), card.rounding)
    plain = settlement(account_id, cost.cost, rounding=cost.rounding)
    terms = msgspec.structs.replace(plain.terms, rate_version=card.version, model=MODEL)
    key = card.rate_key(row, None, usage.input_total)
    return msgspec.structs.replace(plain, usage=usage, rate_key=key, terms=terms)


async def test_a_day_is_booked_at_the_provider_s_prices_and_once(
    books: Books, costs: ProviderCosts, card: RateCard
) -> None:
    account = await books.account(grant=10**9)
    for tokens in (100, 200, 300):
        usage = Usage(input=tokens * 1000, output=tokens)
        await books.post(books.event(end_fields(priced(account.id, card, usage))))
    assert await costs.next_day() == TODAY
    [cost] = await costs.book(TODAY)
    # $0.15 and $0.60 a million tokens, in millionths of a credit
    assert cost.cost == 600_000 * 150 + 600 * 600
    assert (cost.model, cost.calls, cost.margin_percent) == (MODEL, 3, 400)
    assert await books.system(Bucket.COGS_OPENAI) == -cost.cost
    assert await books.system(Bucket.OPENAI_PAYABLE) == cost.cost
    assert await costs.book(TODAY) == []
    assert await books.system(Bucket.COGS_OPENAI) == -cost.cost
    assert await costs.next_day() == TODAY + timedelta(days=1)
    await books.require_sound()


async def test_a_lapse_and_its_correction_cost_what_the_call_did(
    books: Books, costs: ProviderCosts, card: RateCard
) -> None:
    account = await books.account(grant=10**9)
    late = priced(account.id, card, Usage(input=1000, output=100))
    lapse = msgspec.structs.replace(late, cost=400, outcome=Outcome.LAPSED)
    await books.post(books.event(lapse_fields(lapse)))
    [lapsed] = await costs.of_days(TODAY, TODAY)
    assert lapsed.cost == 100  # a quarter of what was charged
    await books.post(books.event(end_fields(late, phase=Phase.CORRECTION, charged=late.cost - 400)))
    [cost] = await costs.of_days(TODAY, TODAY)
    assert (cost.cost, cost.charged, cost.calls) == (late.cost // 4, late.cost, 1)


async def test_calls_without_a_known_price_are_told_and_the_day_stays_open(books: Books, costs: ProviderCosts) -> None:
    account = await books.account(grant=1000)
    await books.post(books.event(end_fields(settlement(account.id, 10))))
    with pytest.raises(CostUnknown, match="card@1"):
        await costs.book(TODAY)
    assert await costs.next_day() == TODAY


async def test_a_day_is_not_booked_before_it_is_over(books: Books, card: RateCard) -> None:
    account = await books.account(grant=10**9)
    await books.post(books.event(end_fields(priced(account.id, card, Usage(input=1)))))
    assert await ProviderCosts(books.pool, books.ledger, now_ms=now_ms).next_day() is None


async def test_a_bill_books_the_difference_and_a_repeated_one_nothing(
    books: Books, costs: ProviderCosts, card: RateCard
) -> None:
    account = await books.account(grant=10**9)
    await books.post(books.event(end_fields(priced(account.id, card, Usage(input=1_000_000)))))
    [cost] = await costs.book(TODAY)
    assert [await costs.correct(TODAY, TODAY, cost.cost + amount, "invoice") for amount in (7, 7, -5, -5)] == [
        7, 0, -12, 0,
    ]  # fmt: skip
    assert await books.system(Bucket.COGS_OPENAI) == -(cost.cost - 5)
    with pytest.raises(BillRefused, match="not every day"):
        await costs.correct(TODAY, TODAY + timedelta(days=1), 1, "invoice")
    await costs.book(TODAY + timedelta(days=1))
    with pytest.raises(BillRefused, match="have a bill already"):
        await costs.correct(TODAY, TODAY + timedelta(days=1), 1, "invoice")
    await books.require_sound()
