"""Buying credits: from the request to the page at Stripe, to the ledger, to a balance that can be spent."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from gateway.adapters.postgres.audit_log import Signature
from gateway.core.guard.flags import PURCHASE, Scope
from gateway.core.money import AMOUNT_UCR_MAX, UCR_PER_CREDIT
from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.stack import CREDITS, Running
from tests.shop import Shop, open_shop


async def test_a_paid_package_can_be_spent_and_is_balanced_in_the_books(shop: Shop) -> None:
    told = await shop.buy("professional")
    assert (told["state"], told["credits"], told["bonusCredits"]) == ("open", "50000", "2500")
    shop.pay(told)
    await shop.settle()
    assert await shop.available() == (CREDITS + 52_500) * UCR_PER_CREDIT
    assert await shop.kinds() == ["grant", "top_up", "grant"]
    fee = 175 * 10_000_000
    assert await shop.system() == {
        "promotions": -(CREDITS + 2_500) * UCR_PER_CREDIT,
        "stripe_clearing": -50_000 * UCR_PER_CREDIT + fee,
        "stripe_fees": -fee,
    }
    _, listed = await shop.ask("GET", "/api/purchases")
    assert [(each["id"], each["state"], each["checkoutUrl"]) for each in listed["data"]] == [(told["id"], "paid", None)]


async def test_one_payment_is_one_top_up_though_many_events_tell_of_it(shop: Shop) -> None:
    await shop.bought()
    for event in [each.event_id for each in shop.simulated.attempts]:
        shop.simulated.send_again(event)
    await shop.settle()
    assert await shop.kinds() == ["grant", "top_up"]


async def test_replaying_everything_changes_nothing(shop: Shop) -> None:
    purchase_id = await shop.bought("professional")
    shop.simulated.order("charges/dispute", await shop.charge_of(purchase_id))
    await shop.settle()
    before = await shop.kinds(), await shop.system(), await shop.available()
    assert await shop.parts.inbox.replay() > 5
    await shop.handle()
    assert (await shop.kinds(), await shop.system(), await shop.available()) == before
    assert await shop.states() == {"processed": sum((await shop.states()).values())}


async def test_the_same_key_tells_the_same_purchase_however_often_it_is_asked(shop: Shop) -> None:
    told = await asyncio.gather(*(shop.buy(key="same") for _ in range(4)))
    assert len({each["id"] for each in told}) == len({each["checkoutUrl"] for each in told}) == 1
    assert (await shop.buy(key="other"))["id"] != told[0]["id"]
    customers = await shop.stack.stores.pool.fetchval("SELECT count(*) FROM stripe_customer")
    assert customers == 1


async def test_a_key_stands_for_one_request_only(shop: Shop) -> None:
    await shop.buy(key="same")
    status, told = await shop.ask("POST", "/api/purchases", {"package": "enterprise"}, Idempotency_Key="same")
    assert (status, told["error"]["code"]) == (409, "idempotency_mismatch")


async def test_a_purchase_whose_answer_was_lost_goes_on_where_it_stopped(shop: Shop) -> None:
    shop.simulated.add_fault("lose_reply", path="/v1/checkout/sessions", times=3)
    status, told = await shop.ask("POST", "/api/purchases", {"package": "starter"}, Idempotency_Key="one")
    assert (status, told["error"]["code"]) == (503, "payments_unavailable")
    told = await shop.buy(key="one")
    assert [each["state"] for each in (await shop.ask("GET", "/api/purchases"))[1]["data"]] == ["open"]
    shop.pay(told)
    await shop.settle()
    assert (await shop.kinds()).count("top_up") == 1


async def test_a_customer_that_stripe_no_longer_has_is_made_anew(shop: Shop) -> None:
    await shop.stack.stores.pool.execute(
        "INSERT INTO stripe_customer (account_id, stripe_id) VALUES ($1::uuid, 'cus_gone')", shop.account.id
    )
    await shop.bought()
    assert (await shop.kinds()).count("top_up") == 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "either"),
        ({"package": "starter", "amountCents": 500}, "either"),
        ({"package": "gold"}, "no such package"),
        ({"amountCents": 499}, "500 to"),
        ({"amountCents": -500}, "500 to"),
        ({"amountCents": 5.5}, "int"),
        ({"amountCents": 10**30}, "500 to|int"),
        ({"package": "starter", "credits": 10**9}, "unknown field"),
        (["starter"], "object"),
    ],
)
async def test_what_is_not_for_sale_is_refused(shop: Shop, body: Any, why: str) -> None:
    status, told = await shop.ask("POST", "/api/purchases", body, Idempotency_Key="one")
    assert status == 400
    assert any(part in told["error"]["message"] for part in why.split("|"))
    assert (await shop.ask("GET", "/api/purchases"))[1]["data"] == []


async def test_purchases_come_in_pages_that_show_each_once(shop: Shop) -> None:
    begun = [
        (await shop.ask("POST", "/api/purchases", {"package": "starter"}, Idempotency_Key=f"key {n}"))[1]["id"]
        for n in range(5)
    ]
    path, pages = "/api/purchases?limit=2", []
    for _ in range(3):
        _, page = await shop.ask("GET", path)
        pages.append([each["id"] for each in page["data"]])
        path = f"/api/purchases?limit=2&cursor={page['nextCursor']}"
    assert pages == [begun[4:2:-1], begun[2:0:-1], begun[:1]]
    assert page["nextCursor"] is None


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/purchases"), ("PUT", "/api/recharge")])
async def test_a_body_that_is_no_text_is_refused_as_one(shop: Shop, method: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {shop.account.key}", "Idempotency-Key": "one"}
    body = b'{"package": "\xff"}'
    async with shop.browser.request(method, f"{shop.url}{path}", data=body, headers=headers) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, "invalid_request")


async def test_nothing_is_sold_beyond_what_an_account_can_hold(shop: Shop) -> None:
    first = await shop.bought(key="first")
    room = AMOUNT_UCR_MAX - 4_999 * UCR_PER_CREDIT - await shop.available()
    await shop.stack.stores.accounts.grant(shop.account.id, room, "a gift")
    status, told = await shop.ask("POST", "/api/purchases", {"package": "starter"}, Idempotency_Key="second")
    assert (status, told["error"]["message"]) == (
        400,
        "An account can hold at most 9007199254.740991 credits: use some first, or buy less.",
    )
    assert (await shop.buy(key="first"))["id"] == first


async def test_a_purchase_needs_a_key_of_ours_and_an_idempotency_key(shop: Shop) -> None:
    status, told = await shop.ask("POST", "/api/purchases", {"package": "starter"})
    assert (status, "Idempotency-Key" in told["error"]["message"]) == (400, True)
    stranger = shop.account._replace(key="sk-tg-unknown")
    assert (await shop.ask("GET", "/api/purchases", account=stranger))[0] == 401


async def test_purchases_of_others_are_not_shown(shop: Shop) -> None:
    await shop.buy()
    other = await shop.stack.new_account("other")
    assert (await shop.ask("GET", "/api/purchases", account=other))[1]["data"] == []


async def test_an_own_amount_buys_ten_credits_a_cent(shop: Shop) -> None:
    _, told = await shop.ask("POST", "/api/purchases", {"amountCents": 1234}, Idempotency_Key="one")
    assert told["credits"] == "12340"
    shop.pay(told)
    await shop.settle()
    assert await shop.available() == (CREDITS + 12_340) * UCR_PER_CREDIT


async def test_an_unpaid_page_ends_as_expired_and_a_debit_counts_when_it_arrives(shop: Shop) -> None:
    told = await shop.buy()
    shop.simulated.order("checkout_sessions/expire", told["checkoutUrl"].rpartition("/")[2])
    await shop.settle()
    assert [each["state"] for each in (await shop.ask("GET", "/api/purchases"))[1]["data"]] == ["expired"]
    assert await shop.available() == CREDITS * UCR_PER_CREDIT


async def test_who_paid_comes_back_to_the_operators_page_with_their_purchase(
    running: Running, openai: SimulatedOpenAI
) -> None:
    async with open_shop(running, openai, return_url="https://shop.example/?page=credits") as shop:
        told = await shop.buy()
        session = shop.simulated.order("checkout_sessions/pay", told["checkoutUrl"].rpartition("/")[2])
        assert session["success_url"] == f"https://shop.example/?page=credits&purchase={told['id']}"
        await shop.settle()


async def test_the_portal_is_the_accounts_own(shop: Shop) -> None:
    status, told = await shop.ask("POST", "/api/purchases/portal")
    assert (status, told["url"].startswith(shop.simulated.url)) == (201, True)


async def test_the_portal_opens_though_stripe_no_longer_has_the_customer(shop: Shop) -> None:
    await shop.stack.stores.pool.execute(
        "INSERT INTO stripe_customer (account_id, stripe_id) VALUES ($1::uuid, 'cus_gone')", shop.account.id
    )
    assert (await shop.ask("POST", "/api/purchases/portal"))[0] == 201


async def test_nothing_is_sold_while_purchases_are_switched_off(shop: Shop) -> None:
    signature = Signature("ann", "the price list changes")
    await shop.stack.stores.flags.set(PURCHASE, False, Scope(), signature)
    await shop.stack.gateway.controls.step()
    status, told = await shop.ask("POST", "/api/purchases", {"package": "starter"}, Idempotency_Key="one")
    assert (status, told["error"]["code"]) == (503, "purchases_closed")
    assert "the price list changes" in told["error"]["message"]
    await shop.stack.stores.flags.clear(PURCHASE, signature)
    await shop.stack.gateway.controls.step()
    await shop.buy()


async def test_an_hour_has_its_share_of_purchases_however_many_are_begun_at_once(shop: Shop) -> None:
    per_hour_max = shop.stack.config.purchases.per_hour_max
    # Stripe knows the customer then: many at once that make one under one key may be told to come back.
    await shop.buy(key="first")
    asked = [
        shop.ask("POST", "/api/purchases", {"package": "starter"}, Idempotency_Key=f"key {n}")
        for n in range(per_hour_max - 1 + 5)
    ]
    told = await asyncio.gather(*asked)
    assert sorted(status for status, _ in told) == [201] * (per_hour_max - 1) + [429] * 5
    begun = next(each["id"] for status, each in told if status == 201)
    key = next(n for n, (_, each) in enumerate(told) if each.get("id") == begun)
    assert (await shop.buy(key=f"key {key}"))["id"] == begun  # whose answer was lost, may ask again


async def test_an_address_has_its_share_of_an_hour_whatever_accounts_it_uses(shop: Shop) -> None:
    allowed = shop.stack.config.purchases.per_address_hour_max
    other = await shop.stack.new_account("another", ucr=0)
    told = [await shop.ask("POST", "/api/purchases", {}, account=other) for _ in range(allowed)]
    assert {status for status, _ in told} == {400}
    status, refused = await shop.ask("POST", "/api/purchases", {"package": "starter"}, Idempotency_Key="one")
    assert (status, refused["error"]["code"]) == (429, "purchase_limit")
    assert "address" in refused["error"]["message"]
    assert (await shop.ask("POST", "/api/purchases/portal"))[0] == 429
    assert (await shop.ask("GET", "/api/purchases"))[0] == 200


def test_stripes_sdk_is_not_loaded_where_nothing_is_sold() -> None:
    code = "import sys, gateway.app.process; sys.exit('stripe' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
