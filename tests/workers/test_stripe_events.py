"""What Stripe's events do to the ledger: refunds, disputes, warnings; and what becomes of those that fail."""

import asyncio
import csv
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from openai import APIStatusError
from stripe import StripeClient

from gateway.adapters.stripe.objects import Told
from gateway.core.accounting.statements import statement_csv
from gateway.core.accounting.topups import PurchaseState
from gateway.core.money import UCR_PER_CREDIT
from gateway.sandbox.openai import SimulatedOpenAI
from gateway.web.ops.listener import listen
from gateway.web.statement_pdf import statement_pdf
from tests.books import OPERATOR
from tests.proxy.stack import CREDITS, Account, Running
from tests.sandbox.stripe.parties import connected
from tests.shop import Shop, open_shop


@pytest.fixture
async def shop(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Shop]:
    async with open_shop(running, openai) as shop:
        yield shop


async def refund(shop: Shop, client: StripeClient, purchase_id: str, cents: int) -> str:
    """As somebody at Stripe's dashboard refunds."""
    intent = await shop.intent_of(purchase_id)
    made = await client.v1.refunds.create_async({"payment_intent": intent, "amount": cents})
    await shop.settle()
    return made.id


def of_stripe(amount: int) -> int:
    """What is there beside the credits that every test account starts with."""
    return amount - CREDITS * UCR_PER_CREDIT


async def status_of(shop: Shop) -> str:
    return (await shop.stack.stores.accounts.find(shop.account.id)).status


async def test_a_refund_takes_its_share_and_gives_it_back_when_it_fails(shop: Shop, client: StripeClient) -> None:
    purchase_id = await shop.bought("professional")
    first = await refund(shop, client, purchase_id, 500)
    await refund(shop, client, purchase_id, 500)
    assert of_stripe(await shop.available()) == (52_500 - 10_500) * UCR_PER_CREDIT
    shop.simulated.order("refunds/fail", first)
    await shop.settle()
    assert of_stripe(await shop.available()) == (52_500 - 5_250) * UCR_PER_CREDIT
    assert (await shop.kinds())[-3:] == ["refund", "refund", "refund"]


async def test_a_dispute_takes_the_credit_and_the_account_out_of_service_until_it_is_won(shop: Shop) -> None:
    purchase_id = await shop.bought()
    dispute = shop.simulated.order("charges/dispute", await shop.charge_of(purchase_id))
    await shop.settle()
    assert (of_stripe(await shop.available()), await status_of(shop)) == (0, "in_review")
    shop.simulated.order("disputes/win", dispute["id"])
    await shop.settle()
    assert (of_stripe(await shop.available()), await status_of(shop)) == (5_000 * UCR_PER_CREDIT, "active")
    fees = 45 * 10_000_000 + 1500 * 10_000_000
    assert (await shop.system())["stripe_clearing"] == -5_000 * UCR_PER_CREDIT + fees


async def test_a_lost_dispute_is_left_to_an_operator(shop: Shop) -> None:
    purchase_id = await shop.bought()
    dispute = shop.simulated.order("charges/dispute", await shop.charge_of(purchase_id))
    shop.simulated.order("disputes/lose", dispute["id"])
    await shop.settle()
    assert (of_stripe(await shop.available()), await status_of(shop)) == (0, "in_review")


async def test_an_inquiry_takes_the_account_out_of_service_and_moves_nothing(shop: Shop) -> None:
    purchase_id = await shop.bought()
    shop.simulated.order("charges/dispute", await shop.charge_of(purchase_id), inquiry=True)
    await shop.settle()
    assert (of_stripe(await shop.available()), await status_of(shop)) == (5_000 * UCR_PER_CREDIT, "in_review")


async def test_spent_credit_that_a_dispute_takes_is_owed_blocks_calls_and_is_paid_first(
    running: Running, openai: SimulatedOpenAI
) -> None:
    async with open_shop(running, openai, freeze="amount") as shop:
        poor = await shop.stack.new_account("poor", ucr=0)
        purchase_id = await shop.bought(account=poor)
        await call(shop, poor)
        await shop.stack.lines()
        spent = 5_000 * UCR_PER_CREDIT - await shop.available(poor)
        shop.simulated.order("charges/dispute", await shop.charge_of(purchase_id))
        await shop.settle()
        assert (await shop.available(poor), spent > 0) == (-spent, True)
        with pytest.raises(APIStatusError, match="credits"):
            await call(shop, poor)
        await shop.bought(key="two", account=poor)
        assert await shop.available(poor) == 5_000 * UCR_PER_CREDIT - spent
        assert (await shop.stack.stores.accounts.balance(poor.id)).debt == 0


async def call(shop: Shop, account: Account) -> None:
    async with shop.stack.client(account.key) as client:
        await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])


async def test_a_fraud_warning_puts_the_account_in_review(shop: Shop) -> None:
    purchase_id = await shop.bought()
    shop.simulated.order("charges/warn", await shop.charge_of(purchase_id))
    await shop.settle()
    assert await status_of(shop) == "in_review"


async def test_an_approved_review_of_radar_ends_the_one_here(shop: Shop) -> None:
    purchase_id = await shop.bought()
    review = shop.simulated.order("charges/review", await shop.charge_of(purchase_id))
    await shop.settle()
    assert await status_of(shop) == "in_review"
    shop.simulated.order("reviews/close", review["id"])
    await shop.settle()
    assert await status_of(shop) == "active"


async def test_an_operators_suspension_outlives_a_won_dispute(shop: Shop) -> None:
    purchase_id = await shop.bought()
    await shop.stack.stores.account_desk.set_status(shop.account.id, "suspended", OPERATOR)
    dispute = shop.simulated.order("charges/dispute", await shop.charge_of(purchase_id))
    await shop.settle()
    shop.simulated.order("disputes/win", dispute["id"])
    await shop.settle()
    assert await status_of(shop) == "suspended"


async def test_tax_is_owed_to_the_state_and_is_no_credit(running: Running, openai: SimulatedOpenAI) -> None:
    async with open_shop(running, openai, automatic_tax=True, tax_ids=True) as shop:
        told = await shop.buy()
        shop.pay(told, country="DE")
        await shop.settle()
        assert of_stripe(await shop.available()) == 5_000 * UCR_PER_CREDIT
        assert (await shop.system())["tax_payable"] == 95 * 10_000_000
        shown = (await shop.ask("GET", "/api/purchases"))[1]["data"][0]
        assert (shown["amountCents"], shown["taxCents"], shown["credits"]) == (500, 95, "5000")


async def test_a_part_refund_gives_its_share_of_the_tax_back(running: Running, openai: SimulatedOpenAI) -> None:
    async with open_shop(running, openai, automatic_tax=True) as shop, connected(shop.simulated.url) as client:
        told = await shop.buy()
        shop.pay(told, country="DE")
        await shop.settle()
        await refund(shop, client, told["id"], 119)
        assert (await shop.system())["tax_payable"] == (95 - 19) * 10_000_000
        assert of_stripe(await shop.available()) == 4_000 * UCR_PER_CREDIT


async def test_a_business_has_its_tax_id_and_what_it_was_taxed_on_its_statement(
    running: Running, openai: SimulatedOpenAI
) -> None:
    async with open_shop(running, openai, automatic_tax=True, tax_ids=True) as shop:
        shop.pay(await shop.buy(key="as a person"), country="DE")
        shop.pay(await shop.buy(key="as a business"), country="DE", tax_id="DE123456789")
        await shop.settle()
        statement, _ = await shop.stack.stores.statements.tell(shop.account.id, datetime.now(UTC).date().replace(day=1))
        assert statement.tax_ids == "DE123456789 (eu_vat)"
        assert sorted(each.tax_cents for each in statement.receipts) == [0, 95]
        rows = list(csv.reader(statement_csv(statement, "").splitlines()))
        assert ["tax ids", "", "", "", "", "", "DE123456789 (eu_vat)", "", "", ""] in rows
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        sold = [row[-3:] for row in rows if row[0] == "receipt"]
        assert sorted(sold) == [[today, "5.00", "0.00"], [today, "5.00", "0.95"]]
        assert statement_pdf(statement, "").startswith(b"%PDF")
        await shop.stack.stores.pool.execute("UPDATE stripe_customer SET tax_ids = ''")
        await shop.parts.inbox.replay(kind="customer.tax_id.created")
        await shop.handle()
        told = (await shop.stack.stores.statements.tell(shop.account.id, datetime.now(UTC).date().replace(day=1)))[0]
        assert told.tax_ids == "DE123456789 (eu_vat)"


async def test_a_payment_of_another_amount_grants_nothing_and_is_told(shop: Shop, client: StripeClient) -> None:
    told = await shop.buy("enterprise")
    cheap: Any = {"amount": 50, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    await client.v1.payment_intents.create_async(cheap | {"metadata": {"purchase_id": told["id"]}})
    await shop.settle()
    assert of_stripe(await shop.available()) == 0
    dead = await shop.parts.inbox.listing(state="dead", count=10)
    assert {each.reason for each in dead} == {"paid 50 cents, sold 50000 and 0 of tax"}
    assert (await shop.ask("GET", "/api/purchases"))[1]["data"][0]["state"] == "mismatched"


async def test_payments_of_others_are_none_of_ours(shop: Shop, client: StripeClient) -> None:
    params: Any = {"amount": 500, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    await client.v1.payment_intents.create_async(params)
    await shop.settle()
    assert set(await shop.states()) == {"processed"}
    assert await shop.system() == {"promotions": -CREDITS * UCR_PER_CREDIT}


async def test_an_event_waits_for_stripe_and_is_not_lost(shop: Shop) -> None:
    told = await shop.buy()
    shop.simulated.add_fault("error", method="GET", times=1000)
    shop.pay(told)
    await shop.settle()
    assert set(await shop.states()) <= {"retrying", "processed"}
    assert "top_up" not in await shop.kinds()
    async with shop.browser.delete(f"{shop.simulated.url}/_sandbox/faults") as cleared:
        assert cleared.status == 200
    await shop.parts.inbox.replay()
    await shop.handle()
    assert (await shop.kinds()).count("top_up") == 1


async def test_waiting_for_stripe_is_no_attempt_at_an_event(running: Running, openai: SimulatedOpenAI) -> None:
    """It has as many attempts after an outage as if there had been none."""
    async with open_shop(running, openai, event_attempts_max=2, retries_max=0) as shop:
        event = Told("evt_1", "checkout.session.completed", "cs_unknown", "", False, 0, b"{}")
        await shop.parts.inbox.keep(event, {}, "webhook")
        shop.simulated.add_fault("error", method="GET", times=4)  # then Stripe answers that there is no such session
        states = []
        for _ in range(6):
            await shop.stack.stores.pool.execute("UPDATE stripe_event SET next_attempt_at = now()")
            await shop.parts.events.step()
            states += [each.state for each in await shop.parts.inbox.listing(count=10)]
        assert states == ["retrying"] * 5 + ["dead"]


async def test_an_event_that_was_given_up_is_taken_up_when_stripe_sends_it_again(shop: Shop) -> None:
    await shop.bought()
    sent = shop.simulated.attempts[-1].event_id
    await shop.parts.inbox.dead(sent, "for the test")
    shop.simulated.send_again(sent)
    await shop.settle()
    assert set(await shop.states()) == {"processed"}


async def test_an_object_of_no_known_shape_stops_no_worker(running: Running, openai: SimulatedOpenAI) -> None:
    """It is tried again, with its reason, and is given up in the end; other events go on."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"id": "cs_1", "object": "checkout.session"})

    strange = web.Application()
    strange.router.add_route("*", "/{path:.*}", answer)
    runner, url = await listen(strange, "127.0.0.1", 0)
    async with open_shop(running, openai, api_url=url) as shop:
        event = Told("evt_1", "checkout.session.completed", "cs_1", "", False, 0, b"{}")
        await shop.parts.inbox.keep(event, {}, "webhook")
        await shop.parts.events.step()
        (kept,) = await shop.parts.inbox.listing(count=10)
        assert (kept.state, kept.reason.partition(":")[0]) == ("retrying", "AttributeError")
    await runner.cleanup()


@pytest.mark.parametrize("seed", range(2))
async def test_shuffled_repeated_and_lost_webhooks_end_in_the_same_ledger(
    shop: Shop, client: StripeClient, seed: int
) -> None:
    chance = random.Random(seed)
    shop.simulated.set_scenario(duplicate=0.5, drop=0.3, lose_reply=0.2, reorder_s=0.05)
    ids = []
    for number in range(3):
        told = await shop.buy("professional", key=f"key {number}")
        shop.pay(told)
        ids.append(told["id"])
    charges = [
        each.latest_charge
        for each in (await client.v1.payment_intents.list_async()).data
        if isinstance(each.latest_charge, str)
    ]
    for charge in charges:
        failing = await client.v1.refunds.create_async({"charge": charge, "amount": chance.randint(1, 2000)})
        await client.v1.refunds.create_async({"charge": charge, "amount": 1000})
        await asyncio.gather(shop.handle(), shop.handle())
        shop.simulated.order("refunds/fail", failing.id)
    won, lost = (shop.simulated.order("charges/dispute", charge)["id"] for charge in charges[:2])
    await shop.handle()
    shop.simulated.order("disputes/win", won)
    shop.simulated.order("disputes/lose", lost)
    await shop.settle()
    await shop.parts.backfill.run(0)
    await shop.handle()
    # Each gave 1000 of 5000 cents back; one lost the rest to a dispute.
    assert of_stripe(await shop.available()) == 2 * 42_000 * UCR_PER_CREDIT
    fees = (3 * 175 + 2 * 1500) * 10_000_000
    assert (await shop.system())["stripe_clearing"] == -2 * 40_000 * UCR_PER_CREDIT + fees


async def test_a_reading_that_comes_late_undoes_nothing(shop: Shop, client: StripeClient) -> None:
    """Also where the newer one found nothing to post: a refund that failed before anybody heard of it."""
    purchase_id = await shop.bought()
    purchases, intent = shop.parts.purchases, await shop.intent_of(purchase_id)
    bought = await purchases.find(purchase_id)
    assert bought is not None
    made = await client.v1.refunds.create_async({"payment_intent": intent, "amount": 100})
    reading = await purchases.begin_reading()
    earlier = await shop.parts.stripe.payment(intent)
    shop.simulated.order("refunds/fail", made.id)
    await shop.settle()
    assert not await purchases.post(bought, earlier, reading, 0)
    assert (await shop.kinds()).count("refund") == 0


async def test_a_purchase_that_failed_is_not_under_way_again_by_a_late_reading(shop: Shop) -> None:
    told = await shop.buy()
    late, newer = [await shop.parts.purchases.begin_reading() for _ in range(2)]
    await shop.parts.purchases.set_state(told["id"], PurchaseState.FAILED, newer)
    await shop.parts.purchases.set_state(told["id"], PurchaseState.PROCESSING, late)
    found = await shop.parts.purchases.find(told["id"])
    assert found is not None
    assert found.state is PurchaseState.FAILED
