"""The customer pays a Checkout Session, or saves a card in it."""

from typing import Any

import msgspec

from gateway.sandbox.stripe.checkout_lines import priced
from gateway.sandbox.stripe.checkout_results import Payer
from gateway.sandbox.stripe.customers import create_customer, update_customer
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.intents import confirm_payment_intent, create_payment_intent, update_payment_intent
from gateway.sandbox.stripe.objects import PaymentMethod, Session
from gateway.sandbox.stripe.setup_intents import confirm_setup_intent, create_setup_intent
from gateway.sandbox.stripe.world import World


def pay_session(world: World, session_id: str, method: PaymentMethod, payer: Payer) -> Session:
    """The customer presses the button: `method` pays, or is saved. Raises the 402 of a decline."""
    session = world.get(Session, session_id)
    if session.status != "open":
        raise invalid(f"This Checkout Session is {session.status}.", code="checkout_session_not_open")
    if method.type not in session.payment_method_types:
        raise invalid(f"This Checkout Session does not take {method.type}.", param="payment_method")
    business = bool(payer.tax_id and (session.tax_id_collection or {}).get("enabled"))
    session = world.put(priced(world, session, payer.country, business))
    session = world.put(msgspec.structs.replace(session, customer=_customer(world, session, payer)))
    world.plans[session.id]["payer"] = payer
    if session.mode == "setup":
        return _set_up(world, session, method)
    intent_id = session.payment_intent
    if intent_id is None:
        data = world.plans[session.id]["intent"]
        types = session.payment_method_types
        intent = create_payment_intent(
            world,
            amount=session.amount_total or 0,
            currency=session.currency or "usd",
            customer=session.customer,
            allowed_payment_method_types=types,
            **data,
        )
        intent_id = intent.id
        session = world.put(msgspec.structs.replace(session, payment_intent=intent_id))
        world.session_of[intent_id] = session.id
    else:
        update_payment_intent(world, intent_id, amount=session.amount_total, customer=session.customer)
    confirm_payment_intent(world, intent_id, payment_method=method.id, return_url=session.url)
    return world.get(Session, session.id)


def _set_up(world: World, session: Session, method: PaymentMethod) -> Session:
    if session.setup_intent is None:
        intent = create_setup_intent(world, customer=session.customer, **world.plans[session.id]["setup"])
        session = world.put(msgspec.structs.replace(session, setup_intent=intent.id))
        world.session_of[intent.id] = session.id
    assert session.setup_intent is not None
    confirm_setup_intent(world, session.setup_intent, payment_method=method.id, return_url=session.url)
    return world.get(Session, session.id)


def _customer(world: World, session: Session, payer: Payer) -> str | None:
    """Who buys: the given customer, brought up to date as far as we allowed; a new one; or a guest."""
    address = {"country": payer.country, "line1": payer.line1, "postal_code": payer.postal_code}
    if session.customer:
        update = world.plans[session.id]["customer_update"]
        changes: dict[str, Any] = {}
        if update.get("address") == "auto" and payer.country:
            changes["address"] = address
        if update.get("name") == "auto" and payer.name:
            changes["name"] = payer.name
        if changes:
            update_customer(world, session.customer, **changes)
        return session.customer
    if session.customer_creation != "always":
        return None
    return create_customer(world, email=payer.email, name=payer.name, address=address).id
