"""Payment intents: from a wish to be paid to a charge, with declines, authentication and bank debits on the way."""

from typing import Any, Final

import msgspec

from gateway.sandbox.stripe import tax
from gateway.sandbox.stripe.amounts import check_amount, currency_of
from gateway.sandbox.stripe.attempts import attempt, paid, unexpected
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.metadata import merged
from gateway.sandbox.stripe.objects import Charge, Customer, Json, Metadata, PaymentIntent, PaymentMethod
from gateway.sandbox.stripe.payment_methods import create_payment_method, usable
from gateway.sandbox.stripe.simulated import simulated
from gateway.sandbox.stripe.transitions import INTENT, after
from gateway.sandbox.stripe.world import World

_KIND: Final = "PaymentIntent"
OPEN: Final = ("requires_payment_method", "requires_confirmation", "requires_action")


def create_payment_intent(
    world: World,
    *,
    amount: int,
    currency: str,
    customer: str | None = None,
    payment_method: str | None = None,
    payment_method_data: Json | None = None,
    allowed_payment_method_types: list[str] | None = None,
    payment_method_types: list[str] | None = None,
    automatic_payment_methods: Json | None = None,
    payment_method_options: Json | None = None,
    capture_method: str = "automatic_async",
    confirmation_method: str = "automatic",
    confirm: bool = False,
    off_session: bool | str = False,
    error_on_requires_action: bool = False,
    setup_future_usage: str | None = None,
    hooks: Json | None = None,
    description: str | None = None,
    metadata: Metadata | None = None,
    receipt_email: str | None = None,
    return_url: str | None = None,
    shipping: Json | None = None,
    statement_descriptor: str | None = None,
    statement_descriptor_suffix: str | None = None,
    mandate_data: Json | None = None,
    use_stripe_sdk: bool = False,
) -> PaymentIntent:
    """`mandate_data` and `use_stripe_sdk` change nothing here: mandates are not kept, and there is no Stripe.js."""
    check_amount(world, amount)
    if customer:
        world.get(Customer, customer, "customer")
    if off_session and not confirm:
        raise invalid("You cannot set `off_session` unless `confirm` is true.", param="off_session")
    tax.check_hook(world, hooks, amount)
    method = _method(world, payment_method, payment_method_data, customer)
    types = allowed_payment_method_types or payment_method_types
    intent_id = world.id_for(PaymentIntent)
    intent = PaymentIntent(
        id=intent_id,
        created=world.created,
        client_secret=f"{intent_id}_{world.new_id('secret')}",
        amount=amount,
        currency=currency_of(currency),
        customer=customer,
        payment_method=method.id if method else None,
        payment_method_types=types or (["card"] if not method or method.type == "card" else [method.type]),
        automatic_payment_methods=automatic_payment_methods or (None if types else {"enabled": True}),
        payment_method_options=payment_method_options or {},
        capture_method=capture_method,
        confirmation_method=confirmation_method,
        setup_future_usage=setup_future_usage,
        hooks=hooks,
        description=description,
        metadata=metadata or {},
        receipt_email=receipt_email,
        shipping=shipping,
        statement_descriptor=statement_descriptor,
        statement_descriptor_suffix=statement_descriptor_suffix,
        status="requires_confirmation" if method else "requires_payment_method",
    )
    world.put(intent)
    world.emit("payment_intent.created", intent)
    if not confirm:
        return intent
    return attempt(world, intent, bool(off_session), error_on_requires_action, return_url)


def confirm_payment_intent(
    world: World,
    intent_id: str,
    *,
    payment_method: str | None = None,
    payment_method_data: Json | None = None,
    off_session: bool | str = False,
    error_on_requires_action: bool = False,
    return_url: str | None = None,
    setup_future_usage: str | None = None,
    receipt_email: str | None = None,
    payment_method_options: Json | None = None,
    mandate_data: Json | None = None,
    use_stripe_sdk: bool = False,
) -> PaymentIntent:
    intent = world.get(PaymentIntent, intent_id)
    if intent.status not in OPEN:
        raise unexpected(intent, "confirm")
    method = _method(world, payment_method, payment_method_data, intent.customer)
    changes: Json = {"next_action": None}
    if method is not None:
        changes |= {"payment_method": method.id, "status": after(INTENT, _KIND, intent.status, "choose")}
    elif intent.payment_method is None:
        message = "You cannot confirm this PaymentIntent because it's missing a payment method."
        raise unexpected(intent, "confirm", message)
    given = {
        "setup_future_usage": setup_future_usage,
        "receipt_email": receipt_email,
        "payment_method_options": payment_method_options,
    }
    changes |= {name: value for name, value in given.items() if value is not None}
    intent = world.put(msgspec.structs.replace(intent, **changes))
    return attempt(world, intent, bool(off_session), error_on_requires_action, return_url)


def capture_payment_intent(
    world: World, intent_id: str, *, amount_to_capture: int | None = None, metadata: Metadata | None = None
) -> PaymentIntent:
    intent = world.get(PaymentIntent, intent_id)
    charge_id = intent.latest_charge
    if intent.status != "requires_capture" or charge_id is None:
        raise unexpected(intent, "capture")
    if amount_to_capture is not None and not 0 < amount_to_capture <= intent.amount_capturable:
        raise invalid("The amount to capture exceeds what can be captured.", code="amount_too_large")
    intent = msgspec.structs.replace(intent, metadata=merged(intent.metadata, metadata))
    charge = world.get(Charge, charge_id)
    return paid(world, intent, charge, authenticated=False, amount=amount_to_capture)


def cancel_payment_intent(world: World, intent_id: str, *, cancellation_reason: str | None = None) -> PaymentIntent:
    intent = world.get(PaymentIntent, intent_id)
    if (intent.status, "cancel") not in INTENT:
        raise unexpected(intent, "cancel")
    canceled = msgspec.structs.replace(
        intent,
        status="canceled",
        canceled_at=world.created,
        cancellation_reason=cancellation_reason,
        amount_capturable=0,
        next_action=None,
    )
    world.put(canceled)
    world.emit("payment_intent.canceled", canceled)
    return canceled


def update_payment_intent(
    world: World,
    intent_id: str,
    *,
    metadata: Metadata | None = None,
    description: str | None = None,
    amount: int | None = None,
    customer: str | None = None,
    payment_method: str | None = None,
    receipt_email: str | None = None,
    setup_future_usage: str | None = None,
    hooks: Json | None = None,
    shipping: Json | None = None,
) -> PaymentIntent:
    """There is no event for an update, as at Stripe."""
    intent = world.get(PaymentIntent, intent_id)
    fixed: dict[str, Any] = {"amount": amount, "customer": customer, "payment_method": payment_method, "hooks": hooks}
    if any(value is not None for value in fixed.values()) and intent.status not in OPEN:
        raise unexpected(intent, "update")
    if amount is not None:
        check_amount(world, amount)
    if customer:
        world.get(Customer, customer, "customer")
    tax.check_hook(world, hooks, amount or intent.amount)
    changes = fixed | {
        "description": description,
        "receipt_email": receipt_email,
        "setup_future_usage": setup_future_usage,
        "shipping": shipping,
    }
    changes = {name: value or None for name, value in changes.items() if value is not None}
    if payment_method:
        method = _method(world, payment_method, None, customer or intent.customer)
        assert method is not None
        changes |= {"payment_method": method.id, "status": after(INTENT, _KIND, intent.status, "choose")}
    return world.put(msgspec.structs.replace(intent, **changes, metadata=merged(intent.metadata, metadata)))


def _method(world: World, given: str | None, data: Json | None, customer_id: str | None) -> PaymentMethod | None:
    if data:
        return create_payment_method(world, **simulated(create_payment_method, data, "payment_method_data"))
    if not given:
        return None
    method = usable(world, given, "payment_method")
    if method.customer and method.customer != customer_id:
        message = (
            "The provided PaymentMethod belongs to a Customer. Please include the Customer in the `customer` parameter."
            if customer_id is None
            else f"The PaymentMethod {method.id} does not belong to the Customer {customer_id}."
        )
        raise invalid(message, param="payment_method")
    return method
