"""Every object has the shape of the SDK's class for it, and every event is one that the SDK knows."""

from typing import Any, get_args, get_type_hints

import pytest
import stripe

from gateway.sandbox.stripe.errors import StripeError
from gateway.sandbox.stripe.expand import shown
from gateway.sandbox.stripe.objects import Event
from gateway.sandbox.stripe.orders import carry_out
from gateway.sandbox.stripe.service import Stripe
from gateway.sandbox.stripe.world import KINDS
from tests.sandbox.stripe.caller import Caller
from tests.sandbox.stripe.shapes import misshapen

CLASSES: dict[str, type] = {
    "balance_transaction": stripe.BalanceTransaction,
    "billing_portal.session": stripe.billing_portal.Session,
    "charge": stripe.Charge,
    "checkout.session": stripe.checkout.Session,
    "customer": stripe.Customer,
    "dispute": stripe.Dispute,
    "event": stripe.Event,
    "invoice": stripe.Invoice,
    "invoiceitem": stripe.InvoiceItem,
    "payment_intent": stripe.PaymentIntent,
    "payment_method": stripe.PaymentMethod,
    "payout": stripe.Payout,
    "price": stripe.Price,
    "product": stripe.Product,
    "radar.early_fraud_warning": stripe.radar.EarlyFraudWarning,
    "refund": stripe.Refund,
    "review": stripe.Review,
    "setup_intent": stripe.SetupIntent,
    "tax.calculation": stripe.tax.Calculation,
    "tax_id": stripe.TaxId,
    "webhook_endpoint": stripe.WebhookEndpoint,
}


def everything() -> Stripe:
    """A history in which every kind of object, and most events, occur."""
    caller = Caller()
    buyer = caller.call("POST", "customers", email="jenny@example.com", metadata__a="b", tax_exempt="none")["id"]
    caller.call("POST", f"customers/{buyer}", name="Jenny", address__country="US")
    caller.call("POST", f"customers/{buyer}/tax_ids", type="eu_vat", value="DE123456789")
    item = {"line_items__0__quantity": "1", "line_items__0__price_data__currency": "usd"}
    item |= {"line_items__0__price_data__unit_amount": "1000", "success_url": "https://tollgate.example/"}
    item["line_items__0__price_data__product_data__name"] = "Starter"
    item |= {"automatic_tax__enabled": "true", "tax_id_collection__enabled": "true", "mode": "payment"}
    item |= {"customer_update__name": "auto", "customer_update__address": "auto", "customer": buyer}
    item |= {"payment_intent_data__setup_future_usage": "off_session", "invoice_creation__enabled": "true"}
    for card in ("4242424242424242", "4000002760003184"):
        session = caller.call("POST", "checkout/sessions", **item)["id"]
        caller.order("checkout_sessions/pay", session, number=card, country="DE", tax_id="DE1")
    caller.call("POST", "checkout/sessions", **item)
    cards = "visa chargeDeclined authenticationRequired createDispute createDisputeInquiry createIssuerFraudRecord"
    made = {}
    for card in (*cards.split(), "riskLevelElevated", "refundFail", "pendingRefund", "radarBlock"):
        paying = {"amount": "700", "currency": "usd", "confirm": "true", "payment_method": f"pm_card_{card}"}
        made[card] = caller.call("POST", "payment_intents", **paying, return_url="https://tollgate.example/")
    for alias in ("usBankAccount_success", "usBankAccount_accountClosed", "sepaDebit_success"):
        debit = {"amount": "700", "currency": "eur", "confirm": "true", "payment_method": f"pm_{alias}"}
        caller.call("POST", "payment_intents", **debit)
    for card in ("visa", "refundFail", "pendingRefund"):
        caller.call("POST", "refunds", payment_intent=made[card]["id"], amount="100", reason="duplicate")
    for dispute in caller.call("GET", "disputes")["data"]:
        caller.order("disputes/win" if dispute["status"] == "needs_response" else "disputes/escalate", dispute["id"])
    held = caller.call(
        "POST", "payment_intents", amount="900", currency="usd", confirm="true",
        payment_method="pm_card_visa", capture_method="manual",
    )  # fmt: skip
    caller.call("POST", f"payment_intents/{held['id']}/capture")
    for card in ("visa", "chargeDeclined", "authenticationRequired"):
        caller.call("POST", "setup_intents", customer=buyer, confirm="true", payment_method=f"pm_card_{card}")
    caller.call("POST", "billing_portal/sessions", customer=buyer)
    caller.call("POST", "invoiceitems", customer=buyer, amount="500", currency="usd")
    drafted = caller.call("POST", "invoices", customer=buyer, pending_invoice_items_behavior="include")
    caller.call("POST", f"invoices/{drafted['id']}/pay", payment_method="pm_card_visa")
    taxed = {"line_items__0__amount": "500", "line_items__0__reference": "x", "currency": "usd"}
    caller.call("POST", "tax/calculations", **taxed, customer_details__address__country="DE")
    caller.call("POST", "webhook_endpoints", url="http://127.0.0.1:1/", enabled_events__0="*")
    caller.now_s += 3 * 86_400
    payout = caller.order("payouts/create").id
    caller.order("payouts/pay", payout)
    caller.order("payouts/fail", payout)
    caller.call("DELETE", f"customers/{caller.call('POST', 'customers')['id']}")
    return caller.stripe


@pytest.fixture(scope="module")
def history() -> Stripe:
    return everything()


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_an_object_has_the_shape_of_its_class(history: Stripe, kind: Any) -> None:
    trees = [shown(history.world, thing, []) for thing in history.world.newest_first(kind)]
    assert trees != []
    assert {wrong for tree in trees for wrong in misshapen(CLASSES[tree["object"]], tree, tree["object"])} == set()


def test_an_event_is_one_that_the_sdk_knows(history: Stripe) -> None:
    known = get_args(get_type_hints(stripe.Event)["type"])
    seen = {event.type for event in history.world.newest_first(Event)}
    assert seen - set(known) == set()
    assert len(seen) > 40


def test_a_full_history_leaves_nothing_undone(history: Stripe) -> None:
    with pytest.raises(StripeError, match="insufficient"):
        carry_out(history.world, "payouts/create", None, {"currency": "gbp"})
