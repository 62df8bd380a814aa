"""Checkout Sessions and the pages that a customer sees, driven by the SDK on one side and by forms on the other."""

import aiohttp
import pytest
import stripe
from stripe import StripeClient

from gateway.sandbox.stripe import SimulatedStripe
from tests.sandbox.stripe.parties import sell, types_of

FORM = {"email": "jenny@example.com", "name": "Jenny Rosen", "country": "US", "postal_code": "94103", "kind": "card"}


async def submit(url: str, **form: str) -> tuple[int, str, str]:
    """Status, location and text of what a form is answered with."""
    async with (
        aiohttp.ClientSession() as browser,
        browser.post(url, data={**FORM, **form}, allow_redirects=False) as answer,
    ):
        return answer.status, answer.headers.get("Location", ""), await answer.text()


async def test_the_form_pays_and_returns_to_the_seller(client: StripeClient) -> None:
    session = await sell(client, client_reference_id="purchase-1", payment_intent_data={"metadata": {"purchase": "1"}})
    assert session.url is not None
    status, location, _ = await submit(session.url, number="4242 4242 4242 4242")
    assert (status, location) == (303, f"https://tollgate.example/done?session={session.id}")
    paid = await client.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["payment_intent", "line_items"]})
    assert (paid.status, paid.payment_status, paid.client_reference_id) == ("complete", "paid", "purchase-1")
    assert isinstance(paid.payment_intent, stripe.PaymentIntent)
    assert paid.payment_intent.metadata.to_dict() == {"purchase": "1"}
    assert paid.line_items is not None
    assert [item.amount_total for item in paid.line_items.data] == [500]
    assert (await types_of(client))[-3:] == [
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]


async def test_a_declined_card_leaves_the_session_open_for_another(client: StripeClient) -> None:
    session = await sell(client)
    assert session.url is not None
    status, _, page = await submit(session.url, number="4000000000000002")
    assert (status, "Your card was declined." in page) == (402, True)
    assert (await submit(session.url, number="4242424242424242"))[0] == 303
    paid = await client.v1.checkout.sessions.retrieve_async(session.id)
    intents = await client.v1.payment_intents.list_async()
    assert (paid.payment_status, len(intents.data)) == ("paid", 1)


@pytest.mark.parametrize(("outcome", "status"), [("pass", "complete"), ("fail", "open")])
async def test_the_bank_may_ask_in_between(
    client: StripeClient, simulated: SimulatedStripe, outcome: str, status: str
) -> None:
    session = await sell(client)
    assert session.url is not None
    _, challenge, _ = await submit(session.url, number="4000002760003184")
    assert challenge.startswith("/authenticate/pi_")
    answered, location, _ = await submit(simulated.url + challenge, outcome=outcome)
    assert (answered, bool(location)) == ((303, True) if outcome == "pass" else (402, False))
    assert (await client.v1.checkout.sessions.retrieve_async(session.id)).status == status


async def test_tax_is_added_for_the_country_and_not_for_a_business_abroad(
    client: StripeClient, simulated: SimulatedStripe
) -> None:
    async def pay(**order: str) -> stripe.checkout.Session:
        session = await sell(client, 1000, automatic_tax={"enabled": True}, tax_id_collection={"enabled": True})
        assert session.automatic_tax.status == "requires_location_inputs"
        simulated.order("checkout_sessions/pay", session.id, **order)
        return await client.v1.checkout.sessions.retrieve_async(session.id)

    person, business = await pay(country="DE"), await pay(country="DE", tax_id="DE123456789")
    assert person.total_details is not None
    assert business.customer_details is not None
    assert (person.amount_subtotal, person.total_details.amount_tax, person.amount_total) == (1000, 190, 1190)
    assert (business.amount_total, business.automatic_tax.status) == (1000, "complete")
    assert [(each.type, each.value) for each in business.customer_details.tax_ids or []] == [("eu_vat", "DE123456789")]


async def test_a_debit_completes_unpaid_and_is_settled_later(client: StripeClient, simulated: SimulatedStripe) -> None:
    for number in ("000123456789", "000111111113"):
        session = await sell(client, allowed_payment_method_types=["card", "us_bank_account"])
        simulated.order("checkout_sessions/pay", session.id, number=number, kind="us_bank_account")
        assert (await client.v1.checkout.sessions.retrieve_async(session.id)).payment_status == "unpaid"
    simulated.settle()
    ended = [kind for kind in await types_of(client) if "async" in kind]
    assert ended == ["checkout.session.async_payment_succeeded", "checkout.session.async_payment_failed"]


async def test_a_saved_card_belongs_to_the_customer(client: StripeClient, simulated: SimulatedStripe) -> None:
    customer = await client.v1.customers.create_async({"email": "jenny@example.com"})
    session = await sell(client, customer=customer.id, payment_intent_data={"setup_future_usage": "off_session"})
    simulated.order("checkout_sessions/pay", session.id)
    setup = await client.v1.checkout.sessions.create_async(
        {"mode": "setup", "customer": customer.id, "currency": "usd", "success_url": "https://tollgate.example/"}
    )
    simulated.order("checkout_sessions/pay", setup.id, number="5555555555554444")
    methods = await client.v1.payment_methods.list_async({"customer": customer.id, "type": "card"})
    assert [method.card.brand for method in methods.data if method.card] == ["mastercard", "visa"]


async def test_an_unpaid_session_expires(client: StripeClient, simulated: SimulatedStripe) -> None:
    by_hand, by_time = await sell(client), await sell(client)
    await client.v1.checkout.sessions.expire_async(by_hand.id)
    simulated.advance(86_401)
    assert (await client.v1.checkout.sessions.retrieve_async(by_time.id)).status == "expired"
    assert (await types_of(client)).count("checkout.session.expired") == 2
    assert by_time.url is not None
    status, _, _ = await submit(by_time.url, number="4242424242424242")
    assert status == 400


async def test_what_an_expired_session_had_begun_is_canceled(client: StripeClient) -> None:
    session = await sell(client)
    assert session.url is not None
    await submit(session.url, number="4000000000000002")
    await client.v1.checkout.sessions.expire_async(session.id)
    assert (await client.v1.payment_intents.list_async()).data[0].status == "canceled"


@pytest.mark.parametrize("url", ["javascript:alert(1)", "/done", "https://"])
async def test_a_customer_is_sent_to_addresses_on_the_web_only(client: StripeClient, url: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await sell(client, success_url=url)
    assert (refused.value.code, refused.value.param) == ("url_invalid", "success_url")


async def test_an_invoice_is_made_for_who_asks(client: StripeClient, simulated: SimulatedStripe) -> None:
    customer = await client.v1.customers.create_async()
    session = await sell(client, customer=customer.id, invoice_creation={"enabled": True})
    done = simulated.order("checkout_sessions/pay", session.id)
    invoice = await client.v1.invoices.retrieve_async(done["invoice"])
    assert (invoice.status, invoice.total, invoice.amount_due) == ("paid", 500, 500)
    assert invoice.hosted_invoice_url is not None
    async with aiohttp.ClientSession() as browser, browser.get(invoice.hosted_invoice_url) as page:
        assert "USD 5.00" in await page.text()


async def test_an_existing_customer_must_be_open_to_what_the_page_collects(client: StripeClient) -> None:
    customer = await client.v1.customers.create_async()
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await sell(client, customer=customer.id, automatic_tax={"enabled": True})
    assert refused.value.code == "customer_tax_location_invalid"
    with pytest.raises(stripe.InvalidRequestError, match="customer_update"):
        await sell(client, customer=customer.id, tax_id_collection={"enabled": True})


async def test_the_portal_changes_what_stripe_keeps(client: StripeClient) -> None:
    customer = await client.v1.customers.create_async()
    method = await client.v1.payment_methods.attach_async("pm_card_visa", {"customer": customer.id})
    portal = await client.v1.billing_portal.sessions.create_async(
        {"customer": customer.id, "return_url": "https://tollgate.example/"}
    )
    assert (await submit(portal.url, detach=method.id))[0] == 200
    assert (await submit(portal.url, name="<b>Jenny</b>"))[2].count("&lt;b&gt;Jenny") == 1
    assert (await client.v1.customers.retrieve_async(customer.id)).name == "<b>Jenny</b>"
    assert (await types_of(client))[-2:] == ["payment_method.detached", "customer.updated"]
