"""What no event told, and what went to the bank: the books catch up with Stripe."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from stripe import StripeClient

from gateway.adapters.postgres.payouts import Payouts
from gateway.adapters.stripe.client import Stripe, StripeRefused, StripeUnavailable
from gateway.adapters.stripe.objects import BalanceMovement
from gateway.core.accounting.payouts import Payout
from gateway.core.accounting.topups import Mismatch
from gateway.core.money import UCR_PER_CREDIT
from gateway.sandbox.openai import SimulatedOpenAI
from gateway.workers.backfill import Backfill
from tests.books import now_ms
from tests.patience import PATIENCE_S
from tests.proxy.stack import CREDITS, Running
from tests.shop import Shop, open_shop


@pytest.fixture
async def shop(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Shop]:
    async with open_shop(running, openai) as shop:
        yield shop


def of_stripe(amount: int) -> int:
    """What is there beside the credits that every test account starts with."""
    return amount - CREDITS * UCR_PER_CREDIT


@asynccontextmanager
async def backfill_of(
    shop: Shop, kind: type[Stripe], now_s: Callable[[], float] = time.time
) -> AsyncIterator[Backfill]:
    """A backfill by an hour's steps, from a Stripe that does not tell everything."""
    config, stores = shop.stack.config, shop.stack.stores
    stripe = kind(config.stripe_key, api_url=config.stripe.api_url, timeout_s=PATIENCE_S, retries_max=0)
    payouts = Payouts(stores.pool, stores.ledger, now_ms=now_ms)
    try:
        yield Backfill(shop.parts.inbox, stripe, shop.parts.payments, payouts, now_s=now_s, interval_s=3600)
    finally:
        await stripe.close()


async def status_of(shop: Shop) -> str:
    return (await shop.stack.stores.accounts.find(shop.account.id)).status


async def test_what_no_event_ever_told_is_found_by_the_backfill(shop: Shop) -> None:
    shop.simulated.set_scenario(suppress=1.0)
    told = await shop.buy()
    shop.pay(told)
    await shop.settle()
    assert "top_up" not in await shop.kinds()
    assert (await shop.parts.backfill.run(0)).payments == 1
    await shop.stack.stores.crediter.step()
    assert of_stripe(await shop.available()) == 5_000 * UCR_PER_CREDIT


@pytest.mark.parametrize("how", ["a dispute is won", "a refund fails"])
async def test_money_that_comes_back_long_after_and_is_never_told_is_found_by_the_backfill(
    shop: Shop, client: StripeClient, how: str
) -> None:
    bought = await shop.bought()
    charge = await shop.charge_of(bought)
    if how == "a dispute is won":
        order, taken = "disputes/win", shop.simulated.order("charges/dispute", charge)["id"]
    else:
        order, taken = "refunds/fail", (await client.v1.refunds.create_async({"charge": charge})).id
    await shop.settle()
    assert of_stripe(await shop.available()) == 0
    shop.simulated.set_scenario(suppress=1.0)
    shop.simulated.advance(300)
    shop.simulated.order(order, taken)
    assert (await shop.parts.backfill.run(int(time.time()) + 150)).payments == 1
    await shop.handle()
    assert (of_stripe(await shop.available()), await status_of(shop)) == (5_000 * UCR_PER_CREDIT, "active")


async def test_a_dispute_that_no_event_ever_told_takes_the_account_out_of_service_by_the_backfill(shop: Shop) -> None:
    charge = await shop.charge_of(await shop.bought())
    shop.simulated.set_scenario(suppress=1.0)
    shop.simulated.order("charges/dispute", charge)
    for _ in range(2):
        await shop.parts.backfill.run(0)
        await shop.handle()
    assert (of_stripe(await shop.available()), await status_of(shop)) == (0, "in_review")
    told = await shop.stack.stores.pool.fetch("SELECT kind FROM notice WHERE kind = 'dispute'")
    assert len(told) == 1


async def test_what_could_not_be_delivered_is_fetched(shop: Shop) -> None:
    shop.simulated.set_scenario(drop=1.0)
    shop.pay(await shop.buy())
    await shop.settle()
    assert (await shop.parts.backfill.run(0)).events > 0
    await shop.handle()
    assert (await shop.kinds()).count("top_up") == 1


async def bank(shop: Shop) -> dict[str, int]:
    """In cents: what the books have at the bank, and at Stripe."""
    system = await shop.system()
    return {name: -system.get(name, 0) // 10_000_000 for name in ("bank", "stripe_clearing")}


async def test_a_payout_is_booked_once_when_it_is_made(shop: Shop) -> None:
    await shop.bought()
    paid = shop.simulated.order("payouts/create", even_pending=True)
    await shop.settle()
    assert await bank(shop) == {"bank": 500 - 45, "stripe_clearing": 0}
    shop.simulated.order("payouts/pay", paid["id"])
    await shop.settle()
    assert await bank(shop) == {"bank": 500 - 45, "stripe_clearing": 0}


async def test_a_payout_that_the_bank_sends_back_is_at_stripe_again_whatever_is_read_later(shop: Shop) -> None:
    await shop.bought()
    paid = shop.simulated.order("payouts/create", even_pending=True)
    await shop.settle()
    earlier = await shop.parts.stripe.payout(paid["id"])
    shop.simulated.order("payouts/fail", paid["id"])
    await shop.settle()
    assert await bank(shop) == {"bank": 0, "stripe_clearing": 500 - 45}
    await Payouts(shop.stack.stores.pool, shop.stack.stores.ledger, now_ms=now_ms).post(earlier)
    assert await bank(shop) == {"bank": 0, "stripe_clearing": 500 - 45}


async def test_a_payout_in_another_currency_is_left_to_an_operator(shop: Shop) -> None:
    foreign = Payout("po_1", 500, "eur", "paid", is_automatic=True)
    with pytest.raises(Mismatch):
        await Payouts(shop.stack.stores.pool, shop.stack.stores.ledger, now_ms=now_ms).post(foreign)


async def test_a_payout_that_stripe_does_not_show_keeps_no_other_from_the_books(shop: Shop) -> None:
    """Its movement of the balance is listed all the same, and before the older ones."""
    shop.simulated.set_scenario(suppress=1.0)
    shop.pay(await shop.buy())
    shop.simulated.order("payouts/create", even_pending=True)
    shop.pay(await shop.buy(key="two"))
    hidden = shop.simulated.order("payouts/create", even_pending=True)["id"]

    class Forgetful(Stripe):
        async def payout(self, payout_id: str) -> Payout:
            if payout_id == hidden:
                raise StripeRefused(f"No such payout: {payout_id!r}", "resource_missing")
            return await super().payout(payout_id)

    async with backfill_of(shop, Forgetful) as backfill:
        await backfill.step()
    assert await bank(shop) == {"bank": 500 - 45, "stripe_clearing": 500 - 45}


async def test_what_moved_while_stripe_was_away_for_long_is_found_when_it_is_back(shop: Shop) -> None:
    now_s, is_away = [time.time()], [False]

    class Away(Stripe):
        async def touched(self, since_s: int) -> set[str]:
            if is_away[0]:
                raise StripeUnavailable("away")
            return await super().touched(since_s)

    async with backfill_of(shop, Away, now_s=lambda: now_s[0]) as backfill:
        await backfill.step()
        shop.simulated.order("balance/charge", amount=30)
        for is_away[0] in (True, True, True, False):
            now_s[0] += 3600
            await backfill.step()
    assert await shop.stack.stores.pool.fetchval("SELECT count(*) FROM stripe_own_fee") == 1


async def test_a_balance_that_cannot_be_read_keeps_no_payment_from_its_grant(shop: Shop) -> None:
    shop.simulated.set_scenario(suppress=1.0)
    before = await shop.available()
    shop.pay(await shop.buy())

    class Restricted(Stripe):
        def balance_movements(self, since_s: int, until_s: int) -> AsyncIterator[BalanceMovement]:
            raise StripeRefused("this key may not read balance transactions")

    async with backfill_of(shop, Restricted) as backfill:
        await backfill.step()
    await shop.stack.stores.crediter.step()
    assert await shop.available() - before == 5_000 * UCR_PER_CREDIT
