"""Each event that concerns us has its whole effect when it is the only one that arrives: every other one is lost."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from stripe import StripeClient

from gateway.adapters.stripe.objects import Cause
from gateway.core.money import UCR_PER_CREDIT
from gateway.sandbox.openai import SimulatedOpenAI
from gateway.sandbox.stripe import SandboxStripeSettings
from tests.proxy.stack import Running
from tests.shop import Shop, open_shop

DEBIT = {"kind": "us_bank_account"}
PAYS, FAILS = "000123456789", "000222222227"
IN_FULL, NOTHING = 5_000, 0

Act = Callable[[Shop, StripeClient, Any], Awaitable[None]]


@pytest.fixture
async def shop(running: Running, openai: SimulatedOpenAI, request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    """A shop that hears of the event that the test is about, and of no other."""
    settings = SandboxStripeSettings(
        seed=7, later_s=3600.0, delivery_retries_s=(0.02,), checkout_methods=("card", "us_bank_account")
    )
    async with open_shop(running, openai, settings=settings, listens_to=[request.param]) as shop:
        shop.account = await shop.stack.new_account("buyer", ucr=0)
        yield shop


async def charge_of(client: StripeClient) -> str:
    (intent,) = (await client.v1.payment_intents.list_async()).data
    assert isinstance(intent.latest_charge, str)
    return intent.latest_charge


async def pays(shop: Shop, _: StripeClient, told: Any) -> None:
    shop.pay(told)


async def debits(shop: Shop, _: StripeClient, told: Any) -> None:
    shop.pay(told, number=PAYS, **DEBIT)


async def debits_and_the_bank_pays(shop: Shop, _: StripeClient, told: Any) -> None:
    shop.pay(told, number=PAYS, **DEBIT)
    shop.simulated.settle()


async def debits_and_the_bank_refuses(shop: Shop, _: StripeClient, told: Any) -> None:
    shop.pay(told, number=FAILS, **DEBIT)
    shop.simulated.settle()


async def leaves(shop: Shop, _: StripeClient, told: Any) -> None:
    shop.simulated.order("checkout_sessions/expire", told["checkoutUrl"].rpartition("/")[2])


async def is_refunded(shop: Shop, client: StripeClient, told: Any) -> None:
    shop.pay(told)
    await client.v1.refunds.create_async({"charge": await charge_of(client), "amount": 100})


async def is_refunded_in_vain(shop: Shop, client: StripeClient, told: Any) -> None:
    shop.pay(told)
    made = await client.v1.refunds.create_async({"charge": await charge_of(client), "amount": 100})
    shop.simulated.order("refunds/fail", made.id)


async def disputes(shop: Shop, client: StripeClient, told: Any) -> None:
    shop.pay(told)
    shop.simulated.order("charges/dispute", await charge_of(client))


async def disputes_in_vain(shop: Shop, client: StripeClient, told: Any) -> None:
    shop.pay(told)
    dispute = shop.simulated.order("charges/dispute", await charge_of(client))
    shop.simulated.order("disputes/win", dispute["id"])


@pytest.mark.parametrize(
    ("shop", "act", "state", "credits", "status"),
    [
        ("checkout.session.completed", pays, "paid", IN_FULL, "active"),
        ("checkout.session.completed", debits, "processing", NOTHING, "active"),
        ("checkout.session.async_payment_succeeded", debits_and_the_bank_pays, "paid", IN_FULL, "active"),
        ("checkout.session.async_payment_failed", debits_and_the_bank_refuses, "failed", NOTHING, "active"),
        ("checkout.session.expired", leaves, "expired", NOTHING, "active"),
        ("payment_intent.succeeded", pays, "paid", IN_FULL, "active"),
        ("payment_intent.processing", debits, "processing", NOTHING, "active"),
        ("payment_intent.payment_failed", debits_and_the_bank_refuses, "failed", NOTHING, "active"),
        ("refund.created", is_refunded, "paid", 4_000, "active"),
        ("charge.refunded", is_refunded, "paid", 4_000, "active"),
        ("refund.failed", is_refunded_in_vain, "paid", IN_FULL, "active"),
        ("refund.updated", is_refunded_in_vain, "paid", IN_FULL, "active"),
        ("charge.dispute.created", disputes, "paid", NOTHING, "in_review"),
        ("charge.dispute.funds_withdrawn", disputes, "paid", NOTHING, "in_review"),
        ("charge.dispute.funds_reinstated", disputes_in_vain, "paid", IN_FULL, "active"),
        ("charge.dispute.closed", disputes_in_vain, "paid", IN_FULL, "active"),
    ],
    indirect=["shop"],
)
async def test_one_event_is_enough(
    shop: Shop, client: StripeClient, act: Act, state: str, credits: int, status: str
) -> None:
    told = await shop.buy()
    await act(shop, client, told)
    await shop.settle()
    bought = await shop.parts.purchases.find(told["id"])
    assert bought is not None
    found = await shop.stack.stores.accounts.find(shop.account.id)
    available = (await shop.stack.stores.live_balance(shop.account.id)).available
    assert (bought.state, available, found.status) == (state, credits * UCR_PER_CREDIT, status)


async def notices(shop: Shop) -> list[tuple[str, dict[str, str]]]:
    rows = await shop.stack.stores.pool.fetch("SELECT kind, fields FROM notice ORDER BY kind")
    return [(row["kind"], msgspec.json.decode(row["fields"])) for row in rows]


@pytest.mark.parametrize("shop", ["*"], indirect=True)
async def test_a_dispute_is_told_once_to_its_account_and_to_operators(shop: Shop, client: StripeClient) -> None:
    await disputes(shop, client, await shop.buy())
    for _ in range(2):
        await shop.settle()
        await shop.parts.inbox.replay()
    await shop.handle()
    (_, operators), (_, account) = await notices(shop)
    assert (operators["amount"], operators["reason"]) == ("$5.00", "fraudulent")
    assert operators["reference"].startswith(("dp_", "du_"))
    assert (account["amount"], account["reason"]) == ("$5.00", "dispute of a payment: fraudulent")


@pytest.mark.parametrize("shop", ["*"], indirect=True)
async def test_a_debit_that_fails_is_told_once(shop: Shop, client: StripeClient) -> None:
    await debits_and_the_bank_refuses(shop, client, await shop.buy())
    await shop.settle()
    await shop.parts.inbox.replay()
    await shop.handle()
    assert await notices(shop) == [("payment_failed", {"amount": "$5.00", "reason": "the bank refused it"})]


@pytest.mark.parametrize("shop", ["charge.dispute.closed"], indirect=True)
async def test_a_reading_that_comes_late_opens_no_review_that_is_over(shop: Shop, client: StripeClient) -> None:
    await disputes_in_vain(shop, client, await shop.buy())
    await shop.settle()
    (won,) = (await client.v1.disputes.list_async()).data
    late = Cause(won.id, "pi", True, "dispute", "fraudulent", 500)
    await shop.parts.causes.follow(shop.account.id, late, reviews=True)
    assert (await shop.stack.stores.accounts.find(shop.account.id)).status == "active"


@pytest.mark.parametrize(
    ("shop", "order"),
    [("radar.early_fraud_warning.created", "charges/warn"), ("review.opened", "charges/review")],
    indirect=["shop"],
)
async def test_a_warning_and_a_review_keep_the_credit_and_stop_the_account(
    shop: Shop, client: StripeClient, order: str
) -> None:
    shop.pay(await shop.buy())
    shop.simulated.order(order, await charge_of(client))
    await shop.settle()
    assert (await shop.stack.stores.accounts.find(shop.account.id)).status == "in_review"
    assert await shop.available() == 5_000 * UCR_PER_CREDIT
    assert [kind for kind, _ in await notices(shop)] == ["payment_review"]


@pytest.mark.parametrize("shop", ["radar.early_fraud_warning.updated"], indirect=True)
async def test_a_warning_is_over_when_its_payment_was_refunded(shop: Shop, client: StripeClient) -> None:
    shop.pay(await shop.buy())
    charge = await charge_of(client)
    warning = shop.simulated.order("charges/warn", charge)
    seen = Cause(warning["id"], "pi", True, "fraud warning", "made_with_stolen_card", 500)
    await shop.parts.causes.follow(shop.account.id, seen, reviews=True)
    assert (await shop.stack.stores.accounts.find(shop.account.id)).status == "in_review"
    await client.v1.refunds.create_async({"charge": charge})
    await shop.settle()
    assert (await shop.stack.stores.accounts.find(shop.account.id)).status == "active"


async def saved_card(shop: Shop) -> str:
    card: str = await shop.stack.stores.pool.fetchval("SELECT card FROM stripe_customer")
    return card


async def attach(client: StripeClient, alias: str = "pm_card_visa") -> str:
    customer = (await client.v1.customers.list_async()).data[0].id
    return (await client.v1.payment_methods.attach_async(alias, {"customer": customer})).id


@pytest.mark.parametrize("shop", ["payment_method.attached"], indirect=True)
async def test_a_card_that_is_saved_is_known(shop: Shop, client: StripeClient) -> None:
    await shop.buy()
    await attach(client)
    await shop.settle()
    assert await saved_card(shop) == "visa 4242"


@pytest.mark.parametrize("shop", ["customer.updated"], indirect=True)
async def test_the_card_that_the_customer_chose_is_charged_and_not_the_newest(shop: Shop, client: StripeClient) -> None:
    await shop.buy()
    chosen = await attach(client)
    await attach(client, "pm_card_mastercard")
    customer = await shop.parts.purchases.customer(shop.account.id)
    assert customer is not None
    await client.v1.customers.update_async(customer, {"invoice_settings": {"default_payment_method": chosen}})
    await shop.settle()
    assert await saved_card(shop) == "visa 4242"


@pytest.mark.parametrize("shop", ["payment_method.detached"], indirect=True)
async def test_a_card_that_is_removed_is_charged_no_more(shop: Shop, client: StripeClient) -> None:
    await shop.buy()
    card = await attach(client)
    await shop.stack.stores.pool.execute("UPDATE stripe_customer SET card = 'visa 4242', card_id = $1", card)
    await client.v1.payment_methods.detach_async(card)
    await shop.settle()
    assert await saved_card(shop) == ""


@pytest.mark.parametrize("shop", ["customer.deleted"], indirect=True)
async def test_a_customer_who_was_deleted_is_made_anew(shop: Shop, client: StripeClient) -> None:
    await shop.buy()
    first = await shop.parts.purchases.customer(shop.account.id)
    assert first is not None
    await client.v1.customers.delete_async(first)
    await shop.settle()
    assert await shop.parts.purchases.customer(shop.account.id) is None
    await shop.buy(key="two")
    assert await shop.parts.purchases.customer(shop.account.id) not in (None, first)
