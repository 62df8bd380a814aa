"""An attempt to be paid: authentication, the charge or the debit, and what is recorded of success and failure."""

from typing import Final

import msgspec

from gateway.sandbox.stripe.challenges import next_action
from gateway.sandbox.stripe.charges import (
    begin_charge,
    charge_authorized,
    charge_failed,
    charge_succeeded,
    follow_up,
    open_review,
)
from gateway.sandbox.stripe.checkout_results import intent_moved
from gateway.sandbox.stripe.declines import decline, last_error
from gateway.sandbox.stripe.errors import StripeError, invalid
from gateway.sandbox.stripe.objects import Charge, PaymentIntent, PaymentMethod
from gateway.sandbox.stripe.payment_methods import attach
from gateway.sandbox.stripe.transitions import INTENT, after
from gateway.sandbox.stripe.world import World

_KIND: Final = "PaymentIntent"


def attempt(
    world: World, intent: PaymentIntent, off_session: bool, no_action: bool, return_url: str | None
) -> PaymentIntent:
    """Try to be paid by the intent's payment method. Raises the 402 of a decline, after recording it."""
    method_id = intent.payment_method
    if method_id is None:
        message = "You cannot confirm this PaymentIntent because it's missing a payment method."
        raise unexpected(intent, "confirm", message)
    method = world.get(PaymentMethod, method_id, "payment_method")
    instrument = world.instruments[method.id]
    if instrument.authentication and not (instrument.authentication == "unless_set_up" and method.id in world.set_up):
        if off_session or no_action:
            return _decline(world, intent, method, "authentication_required")
        status = after(INTENT, _KIND, intent.status, "ask")
        asking = world.put(
            msgspec.structs.replace(intent, status=status, next_action=next_action(world, intent.id, return_url))
        )
        world.emit("payment_intent.requires_action", asking)
        return asking
    return _pay(world, intent, method, authenticated=False)


def authenticate_payment(world: World, intent_id: str, *, passed: bool) -> PaymentIntent:
    """The customer passed or failed the bank's challenge. Declines are recorded, not raised: nobody of ours asked."""
    intent = world.get(PaymentIntent, intent_id)
    if intent.status != "requires_action" or intent.payment_method is None:
        raise unexpected(intent, "authenticate")
    method = world.get(PaymentMethod, intent.payment_method)
    intent = world.put(msgspec.structs.replace(intent, next_action=None))
    if not passed:
        return _declined(world, intent, method, "authentication_required")
    if world.instruments[method.id].decline:
        return _declined(world, intent, method, world.instruments[method.id].decline)
    return _pay(world, intent, method, authenticated=True)


def _pay(world: World, intent: PaymentIntent, method: PaymentMethod, *, authenticated: bool) -> PaymentIntent:
    instrument = world.instruments[method.id]
    if instrument.kind != "card":
        charge = begin_charge(world, intent, method, authenticated=False)
        world.emit("charge.pending", charge)
        status = after(INTENT, _KIND, intent.status, "process")
        waiting = msgspec.structs.replace(intent, status=status, latest_charge=charge.id, last_payment_error=None)
        world.put(waiting)
        world.emit("payment_intent.processing", waiting)
        world.later(world.settings.later_s, _debit_ends, intent.id)
        intent_moved(world, waiting)
        return waiting
    if instrument.decline:
        return _decline(world, intent, method, instrument.decline)
    charge = begin_charge(world, intent, method, authenticated)
    if intent.capture_method == "manual":
        held = charge_authorized(world, charge)
        status = after(INTENT, _KIND, intent.status, "hold")
        holding = msgspec.structs.replace(
            intent, status=status, latest_charge=held.id, amount_capturable=intent.amount, last_payment_error=None
        )
        world.put(holding)
        world.emit("payment_intent.amount_capturable_updated", holding)
        return holding
    return paid(world, intent, charge, authenticated)


def paid(
    world: World, intent: PaymentIntent, charge: Charge, authenticated: bool, amount: int | None = None
) -> PaymentIntent:
    _keep_method(world, intent, charge.payment_method, authenticated)
    charge = charge_succeeded(world, charge, intent.capture_method, amount)
    settled = msgspec.structs.replace(
        intent,
        status=after(INTENT, _KIND, intent.status, "succeed"),
        amount_received=charge.amount_captured,
        amount_capturable=0,
        latest_charge=charge.id,
        last_payment_error=None,
        next_action=None,
    )
    world.put(settled)
    world.emit("payment_intent.succeeded", settled)
    if (charge.outcome or {}).get("type") == "manual_review":
        open_review(world, charge.id)
    follow_up(world, charge)
    settled = world.get(PaymentIntent, settled.id)
    intent_moved(world, settled)
    return settled


def _keep_method(world: World, intent: PaymentIntent, method_id: str, authenticated: bool) -> None:
    """With `setup_future_usage`, the method belongs to the customer from now on."""
    if intent.setup_future_usage and intent.customer:
        attach(world, world.get(PaymentMethod, method_id), intent.customer)
        if authenticated:
            world.set_up.add(method_id)


def _decline(world: World, intent: PaymentIntent, method: PaymentMethod, why: str) -> PaymentIntent:
    declined = _declined(world, intent, method, why)
    raise decline(why, charge=declined.latest_charge, payment_intent=declined, payment_method=method)


def _declined(world: World, intent: PaymentIntent, method: PaymentMethod, why: str) -> PaymentIntent:
    charge = charge_failed(world, begin_charge(world, intent, method, authenticated=False), why)
    status = after(INTENT, _KIND, intent.status, "decline")
    method = world.get(PaymentMethod, method.id)
    declined = msgspec.structs.replace(
        intent,
        status=status,
        payment_method=None,
        latest_charge=charge.id,
        last_payment_error=last_error(why, method, charge.id),
        next_action=None,
    )
    world.put(declined)
    world.emit("payment_intent.payment_failed", declined)
    return declined


def _debit_ends(world: World, intent_id: str) -> None:
    if world.get(PaymentIntent, intent_id).status == "processing":
        end_debit(world, intent_id)


def end_debit(world: World, intent_id: str) -> PaymentIntent:
    """The bank answers a debit, days later in the world outside."""
    intent = world.get(PaymentIntent, intent_id)
    if intent.status != "processing" or intent.latest_charge is None:
        raise unexpected(intent, "settle")
    charge = world.get(Charge, intent.latest_charge)
    why = world.instruments[charge.payment_method].decline
    if not why:
        return paid(world, intent, charge, authenticated=False)
    charge_failed(world, charge, why)
    method = world.get(PaymentMethod, charge.payment_method)
    failed = msgspec.structs.replace(
        intent,
        status=after(INTENT, _KIND, intent.status, "decline"),
        payment_method=None,
        last_payment_error=last_error(why, method, charge.id),
    )
    world.put(failed)
    world.emit("payment_intent.payment_failed", failed)
    intent_moved(world, failed)
    return failed


def unexpected(intent: PaymentIntent, verb: str, message: str | None = None) -> StripeError:
    message = message or f"You cannot {verb} this PaymentIntent because it has a status of {intent.status}."
    return invalid(message, code="payment_intent_unexpected_state", payment_intent=intent)
