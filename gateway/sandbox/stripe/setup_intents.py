"""Setup intents: a card is saved for later, with the customer's consent and, where needed, authentication."""

from typing import Final

import msgspec

from gateway.sandbox.stripe.challenges import next_action
from gateway.sandbox.stripe.checkout_results import setup_moved
from gateway.sandbox.stripe.declines import decline, last_error
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.metadata import merged
from gateway.sandbox.stripe.objects import Customer, Json, Metadata, PaymentMethod, SetupIntent
from gateway.sandbox.stripe.payment_methods import attach, usable
from gateway.sandbox.stripe.transitions import SETUP, after
from gateway.sandbox.stripe.world import World

_KIND: Final = "SetupIntent"


def create_setup_intent(
    world: World,
    *,
    customer: str | None = None,
    payment_method: str | None = None,
    allowed_payment_method_types: list[str] | None = None,
    payment_method_types: list[str] | None = None,
    automatic_payment_methods: Json | None = None,
    confirm: bool = False,
    usage: str = "off_session",
    description: str | None = None,
    metadata: Metadata | None = None,
    return_url: str | None = None,
    mandate_data: Json | None = None,
    use_stripe_sdk: bool = False,
) -> SetupIntent:
    """`mandate_data` and `use_stripe_sdk` change nothing here."""
    if customer:
        world.get(Customer, customer, "customer")
    method = usable(world, payment_method, "payment_method") if payment_method else None
    intent_id = world.id_for(SetupIntent)
    intent = SetupIntent(
        id=intent_id,
        created=world.created,
        client_secret=f"{intent_id}_{world.new_id('secret')}",
        customer=customer,
        payment_method=method.id if method else None,
        payment_method_types=allowed_payment_method_types or payment_method_types or ["card"],
        automatic_payment_methods=automatic_payment_methods,
        usage=usage,
        description=description,
        metadata=metadata or {},
        status="requires_confirmation" if method else "requires_payment_method",
    )
    world.put(intent)
    world.emit("setup_intent.created", intent)
    return _attempt(world, intent, return_url) if confirm else intent


def confirm_setup_intent(
    world: World,
    intent_id: str,
    *,
    payment_method: str | None = None,
    return_url: str | None = None,
    mandate_data: Json | None = None,
    use_stripe_sdk: bool = False,
) -> SetupIntent:
    intent = world.get(SetupIntent, intent_id)
    status = after(SETUP, _KIND, intent.status, "choose")
    if payment_method:
        method = usable(world, payment_method, "payment_method")
        intent = msgspec.structs.replace(intent, payment_method=method.id, status=status)
    return _attempt(world, intent, return_url)


def _attempt(world: World, intent: SetupIntent, return_url: str | None) -> SetupIntent:
    if intent.payment_method is None:
        message = "You cannot confirm this SetupIntent because it's missing a payment method."
        raise invalid(message, code="setup_intent_unexpected_state", setup_intent=intent)
    method = world.get(PaymentMethod, intent.payment_method, "payment_method")
    instrument = world.instruments[method.id]
    if instrument.authentication:
        action = next_action(world, intent.id, return_url)
        status = after(SETUP, _KIND, intent.status, "ask")
        asking = world.put(msgspec.structs.replace(intent, status=status, next_action=action))
        world.emit("setup_intent.requires_action", asking)
        return asking
    if not instrument.attaches:
        failed = _failed(world, intent, method, instrument.decline)
        raise decline(instrument.decline, setup_intent=failed, payment_method=method)
    return _succeeded(world, intent, method)


def authenticate_setup(world: World, intent_id: str, *, passed: bool) -> SetupIntent:
    """The customer passed or failed the bank's challenge."""
    intent = world.get(SetupIntent, intent_id)
    if intent.status != "requires_action" or intent.payment_method is None:
        raise invalid("This SetupIntent waits for no authentication.", code="setup_intent_unexpected_state")
    method = world.get(PaymentMethod, intent.payment_method)
    if not passed:
        return _failed(world, intent, method, "authentication_required")
    world.set_up.add(method.id)
    return _succeeded(world, intent, method)


def _succeeded(world: World, intent: SetupIntent, method: PaymentMethod) -> SetupIntent:
    if intent.customer:
        attach(world, method, intent.customer)
    status = after(SETUP, _KIND, intent.status, "succeed")
    done = world.put(msgspec.structs.replace(intent, status=status, next_action=None, last_setup_error=None))
    world.emit("setup_intent.succeeded", done)
    setup_moved(world, done)
    return done


def _failed(world: World, intent: SetupIntent, method: PaymentMethod, why: str) -> SetupIntent:
    failed = msgspec.structs.replace(
        intent,
        status=after(SETUP, _KIND, intent.status, "decline"),
        payment_method=None,
        next_action=None,
        last_setup_error=last_error(why, method),
    )
    world.put(failed)
    world.emit("setup_intent.setup_failed", failed)
    return failed


def cancel_setup_intent(world: World, intent_id: str, *, cancellation_reason: str | None = None) -> SetupIntent:
    intent = world.get(SetupIntent, intent_id)
    status = after(SETUP, _KIND, intent.status, "cancel")
    canceled = world.put(
        msgspec.structs.replace(intent, status=status, cancellation_reason=cancellation_reason, next_action=None)
    )
    world.emit("setup_intent.canceled", canceled)
    return canceled


def update_setup_intent(
    world: World, intent_id: str, *, metadata: Metadata | None = None, description: str | None = None
) -> SetupIntent:
    intent = world.get(SetupIntent, intent_id)
    description = intent.description if description is None else description or None
    changed = msgspec.structs.replace(intent, metadata=merged(intent.metadata, metadata), description=description)
    return world.put(changed)
