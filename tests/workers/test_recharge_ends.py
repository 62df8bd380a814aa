"""Automatic recharge: who is not charged, and how an attempt ends that never reached Stripe."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from stripe import StripeClient

from gateway.adapters.postgres.audit_log import Signature
from gateway.app.stripe import StripeParts
from gateway.core.accounting.recharge import DECLINES_A_DAY_MAX
from gateway.core.guard.flags import PURCHASE, Scope
from gateway.core.money import UCR_PER_CREDIT
from gateway.sandbox.openai import SimulatedOpenAI
from gateway.web.ops.listener import listen
from tests.books import OPERATOR
from tests.proxy.stack import Running
from tests.recharging import ON, age, agree, buyer, charges, recharge, remedies, shown, use_card
from tests.shop import Shop


@pytest.fixture
async def shop(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Shop]:
    async with buyer(running, openai) as shop:
        yield shop


async def test_a_suspended_account_is_not_charged(shop: Shop, client: StripeClient) -> None:
    await agree(shop)
    await shop.stack.stores.account_desk.set_status(shop.account.id, "suspended", OPERATOR)
    await recharge(shop)
    assert await charges(client) == []


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"amountCents": 1}, "amountCents"),
        ({"monthCentsMax": 999}, "monthCentsMax"),
        ({"thresholdCredits": 0}, "thresholdCredits"),
        ({"thresholdCredits": -1}, "thresholdCredits"),
    ],
)
async def test_terms_that_make_no_sense_are_refused_by_name(shop: Shop, changed: dict[str, int], param: str) -> None:
    status, told = await shop.ask("PUT", "/api/recharge", ON | changed)
    assert (status, told["error"]["param"]) == (400, param)
    assert await shown(shop) == {"on": False}


async def test_turned_off_it_charges_no_more(shop: Shop, client: StripeClient) -> None:
    await agree(shop)
    assert (await shop.ask("PUT", "/api/recharge", {"on": False}))[1]["on"] is False
    await recharge(shop)
    assert await charges(client) == []


async def test_who_agreed_to_a_charge_and_who_turned_it_off_is_in_the_audit_log(shop: Shop) -> None:
    await agree(shop)
    for _ in range(2):  # off is off: nothing changes the second time
        await shop.ask("PUT", "/api/recharge", {"on": False})
    off, on = await shop.stack.stores.audit_log.page(subject=shop.account.id, count=2)
    assert [(on.action, on.before), (off.action, off.after)] == [("recharge.set", None), ("recharge.off", None)]
    assert on.after == off.before
    assert on.author == off.author
    assert on.author.startswith(("key ", "member "))


async def interrupted(shop: Shop) -> None:
    """An attempt is written down, and its worker dies before Stripe is asked; somebody else looks later."""
    (watched,) = await shop.parts.recharges.watched()
    assert await shop.parts.recharges.begin(watched, "usd", is_live=False) is not None
    await age(shop)


async def test_an_attempt_that_never_reached_stripe_ends_when_it_is_turned_off(
    shop: Shop, client: StripeClient
) -> None:
    await agree(shop)
    await interrupted(shop)
    await shop.ask("PUT", "/api/recharge", {"on": False})
    await recharge(shop)
    assert await charges(client) == []
    assert [each.state for each in await shop.parts.recharges.attempts(shop.account.id, 9)] == ["dropped"]


async def test_an_attempt_that_never_reached_stripe_ends_when_the_account_is_suspended(
    shop: Shop, client: StripeClient
) -> None:
    await agree(shop)
    await interrupted(shop)
    await shop.stack.stores.account_desk.set_status(shop.account.id, "suspended", OPERATOR)
    await recharge(shop)
    assert await charges(client) == []


async def test_new_terms_replace_an_attempt_that_never_reached_stripe(shop: Shop, client: StripeClient) -> None:
    await agree(shop)
    await interrupted(shop)
    await agree(shop, amountCents=700)
    await recharge(shop)
    await recharge(shop)
    assert await charges(client) == [(700, "succeeded")]


async def test_a_top_up_by_hand_ends_an_attempt_that_never_reached_stripe(shop: Shop, client: StripeClient) -> None:
    await agree(shop)
    await interrupted(shop)
    await shop.bought("starter", key="by hand")
    await recharge(shop)
    assert await charges(client) == []


async def test_no_card_is_charged_while_purchases_are_switched_off(shop: Shop, client: StripeClient) -> None:
    await agree(shop)
    signature = Signature("ann", "the price list changes")
    await shop.stack.stores.flags.set(PURCHASE, False, Scope(), signature)
    await recharge(shop)
    assert await charges(client) == []
    await shop.stack.stores.flags.clear(PURCHASE, signature)
    await recharge(shop)
    assert await charges(client) == [(1000, "succeeded")]


async def test_an_attempt_that_never_reached_stripe_is_not_charged_while_purchases_are_switched_off(
    shop: Shop, client: StripeClient
) -> None:
    await agree(shop)
    await interrupted(shop)
    await shop.stack.stores.flags.set(PURCHASE, False, Scope(), Signature("ann", "the price list changes"))
    await recharge(shop)
    assert await charges(client) == []


async def test_no_page_is_offered_until_purchases_are_switched_on(shop: Shop, client: StripeClient) -> None:
    await use_card(shop, client, "pm_card_authenticationRequired")
    await agree(shop)
    shop.simulated.add_fault("refuse", method="POST", path="/v1/checkout/sessions", times=3)
    await recharge(shop)
    signature = Signature("ann", "the price list changes")
    await shop.stack.stores.flags.set(PURCHASE, False, Scope(), signature)
    await age(shop)
    await recharge(shop)
    pages = await client.v1.checkout.sessions.list_async()
    assert (len(pages.data), await remedies(shop)) == (1, [])  # that of the first purchase
    await shop.stack.stores.flags.clear(PURCHASE, signature)
    await age(shop)
    await recharge(shop)
    assert (await shown(shop))["checkoutUrl"].startswith("http")


async def test_turning_it_on_again_and_again_does_not_try_a_card_without_end(shop: Shop, client: StripeClient) -> None:
    await use_card(shop, client, "pm_card_chargeCustomerFail")
    for _ in range(DECLINES_A_DAY_MAX + 3):
        await agree(shop)
        await shop.parts.recharger.step()
        await shop.parts.recharger.idle()
    assert len(await charges(client)) == DECLINES_A_DAY_MAX


async def test_a_charge_of_no_known_shape_stops_no_worker(shop: Shop) -> None:
    """It is looked at again later, as one whose answer was lost."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"id": "pi_1", "object": "payment_intent"})

    strange = web.Application()
    strange.router.add_route("*", "/{path:.*}", answer)
    runner, url = await listen(strange, "127.0.0.1", 0)
    config = shop.stack.config
    elsewhere = config.model_copy(update={"stripe": config.stripe.model_copy(update={"api_url": url})})
    parts = StripeParts(elsewhere, shop.stack.stores)
    await agree(shop)
    for _ in range(2):
        await recharge(shop, parts)
        await age(shop)
    await parts.close()
    await runner.cleanup()

    await recharge(shop)
    assert await shop.available() == 15_000 * UCR_PER_CREDIT
