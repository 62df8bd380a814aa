"""Payment intents, setup intents and payment methods, as the official SDK sees them."""

import pytest
import stripe
from stripe import StripeClient

from gateway.sandbox.stripe import SimulatedStripe
from tests.sandbox.stripe.parties import charge, types_of


async def test_a_good_card_pays_and_books_the_fee(client: StripeClient) -> None:
    intent = await charge(client, "card_visa", 1000, expand=["latest_charge.balance_transaction"])
    made = intent.latest_charge
    assert isinstance(made, stripe.Charge)
    assert isinstance(made.balance_transaction, stripe.BalanceTransaction)
    movement = made.balance_transaction
    assert (intent.status, intent.amount_received, made.paid, made.captured) == ("succeeded", 1000, True, True)
    assert (movement.amount, movement.fee, movement.net, movement.status) == (1000, 59, 941, "pending")
    assert await types_of(client) == ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]


@pytest.mark.parametrize(
    ("alias", "code", "decline_code"),
    [
        ("card_chargeDeclined", "card_declined", "generic_decline"),
        ("card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("card_chargeDeclinedExpiredCard", "expired_card", None),
        ("card_chargeDeclinedProcessingError", "processing_error", None),
        ("card_radarBlock", "card_declined", "fraudulent"),
    ],
)
async def test_a_declined_card_is_a_402_that_names_why(
    client: StripeClient, alias: str, code: str, decline_code: str | None
) -> None:
    with pytest.raises(stripe.CardError) as refused:
        await charge(client, alias)
    error = refused.value.error
    assert error is not None
    assert (refused.value.http_status, refused.value.code) == (402, code)
    assert getattr(error, "decline_code", None) == decline_code
    assert error.payment_intent is not None
    intent = await client.v1.payment_intents.retrieve_async(error.payment_intent.id)
    assert (intent.status, intent.payment_method) == ("requires_payment_method", None)
    assert intent.last_payment_error is not None
    assert intent.last_payment_error.code == code
    assert (await types_of(client))[-2:] == ["charge.failed", "payment_intent.payment_failed"]


async def test_off_session_a_card_that_asks_is_declined(client: StripeClient) -> None:
    with pytest.raises(stripe.CardError) as refused:
        await charge(client, "card_authenticationRequired", off_session=True)
    assert refused.value.code == "authentication_required"


async def test_on_session_a_card_that_asks_waits_for_its_customer(
    client: StripeClient, simulated: SimulatedStripe
) -> None:
    intent = await charge(client, "card_authenticationRequired", return_url="https://tollgate.example/back")
    assert intent.status == "requires_action"
    assert intent.next_action is not None
    assert intent.next_action.type == "redirect_to_url"
    simulated.order("payment_intents/authenticate", intent.id, passed=True)
    assert (await client.v1.payment_intents.retrieve_async(intent.id)).status == "succeeded"


async def test_a_card_that_was_set_up_is_charged_off_session(client: StripeClient, simulated: SimulatedStripe) -> None:
    customer = await client.v1.customers.create_async()
    setup = await client.v1.setup_intents.create_async(
        {"customer": customer.id, "payment_method": "pm_card_authenticationRequiredOnSetup", "confirm": True}
    )
    assert setup.status == "requires_action"
    done = simulated.order("setup_intents/authenticate", setup.id)
    intent = await client.v1.payment_intents.create_async(
        {
            "amount": 500,
            "currency": "usd",
            "confirm": True,
            "customer": customer.id,
            "payment_method": done["payment_method"],
            "off_session": True,
        }
    )
    assert intent.status == "succeeded"


async def test_a_debit_is_processing_until_the_bank_answers(client: StripeClient, simulated: SimulatedStripe) -> None:
    good = await charge(client, "usBankAccount_success")
    bad = await charge(client, "usBankAccount_insufficientFunds")
    assert (good.status, bad.status) == ("processing", "processing")
    simulated.settle()
    good = await client.v1.payment_intents.retrieve_async(good.id)
    bad = await client.v1.payment_intents.retrieve_async(bad.id)
    assert (good.status, bad.status) == ("succeeded", "requires_payment_method")


async def test_held_money_is_captured_in_part_or_released(client: StripeClient) -> None:
    held = await charge(client, "card_visa", 1000, capture_method="manual")
    assert (held.status, held.amount_capturable) == ("requires_capture", 1000)
    captured = await client.v1.payment_intents.capture_async(held.id, {"amount_to_capture": 600})
    assert (captured.status, captured.amount_received) == ("succeeded", 600)
    released = await charge(client, "card_visa", 1000, capture_method="manual")
    assert (await client.v1.payment_intents.cancel_async(released.id)).status == "canceled"


async def test_what_has_ended_cannot_begin_again(client: StripeClient) -> None:
    intent = await charge(client, "card_visa")
    for attempt in (
        client.v1.payment_intents.confirm_async(intent.id),
        client.v1.payment_intents.cancel_async(intent.id),
        client.v1.payment_intents.update_async(intent.id, {"amount": 900}),
    ):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await attempt
        assert refused.value.code == "payment_intent_unexpected_state"


async def test_a_card_belongs_to_one_customer_and_can_leave(client: StripeClient) -> None:
    first, second = await client.v1.customers.create_async(), await client.v1.customers.create_async()
    method = await client.v1.payment_methods.attach_async("pm_card_visa", {"customer": first.id})
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.payment_methods.attach_async(method.id, {"customer": second.id})
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.payment_intents.create_async(
            {"amount": 500, "currency": "usd", "payment_method": method.id, "customer": second.id}
        )
    owned = await client.v1.customers.payment_methods.list_async(first.id)
    assert [each.id for each in owned.data] == [method.id]
    assert (await client.v1.payment_methods.detach_async(method.id)).customer is None


@pytest.mark.parametrize(("amount", "code"), [(49, "amount_too_small"), (100_000_000, "amount_too_large")])
async def test_an_amount_has_bounds(client: StripeClient, amount: int, code: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await charge(client, "card_visa", amount)
    assert (refused.value.code, refused.value.param) == (code, "amount")


async def test_a_taxed_payment_is_for_its_calculation(client: StripeClient) -> None:
    calculation = await client.v1.tax.calculations.create_async(
        {
            "currency": "usd",
            "line_items": [{"amount": 1000, "reference": "credits"}],
            "customer_details": {"address": {"country": "DE"}, "address_source": "billing"},
        }
    )
    assert calculation.id is not None
    assert (calculation.tax_amount_exclusive, calculation.amount_total) == (190, 1190)
    paid = await charge(client, "card_visa", 1190, hooks={"inputs": {"tax": {"calculation": calculation.id}}})
    assert paid.status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError):
        await charge(client, "card_visa", 1000, hooks={"inputs": {"tax": {"calculation": calculation.id}}})
