"""The calls that Stripe's own page makes. They are in no SDK; the official CLI uses them to pay a Checkout Session."""

from gateway.sandbox.stripe.checkout_payment import pay_session
from gateway.sandbox.stripe.checkout_results import Payer
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.objects import Json, PaymentMethod, Session
from gateway.sandbox.stripe.world import World


def open_page(world: World, session_id: str) -> Json:
    session = world.get(Session, session_id)
    return {
        "id": session.id,
        "object": "checkout.session",
        "session_id": session.id,
        "mode": session.mode,
        "status": session.status,
        "line_item_group": {"total": session.amount_total, "currency": session.currency},
    }


def confirm_page(world: World, session_id: str, *, payment_method: str, expected_amount: str | None = None) -> Json:
    """Pay with a payment method that was made before."""
    method = world.get(PaymentMethod, payment_method, "payment_method")
    session = world.get(Session, session_id)
    if expected_amount is not None and expected_amount != str(session.amount_total):
        raise invalid("The expected amount differs from the session's.", param="expected_amount")
    details = method.billing_details
    address = details["address"]
    payer = Payer(
        email=details["email"] or "customer@example.com",
        name=details["name"],
        country=address["country"] or "US",
        line1=address["line1"],
        postal_code=address["postal_code"],
    )
    pay_session(world, session_id, method, payer)
    return open_page(world, session_id)
