"""Charges: made by payment intents only. What follows one by itself (a dispute, a warning) is left for later here."""

from typing import Final

import msgspec

from gateway.sandbox.stripe.books import book, fee_of
from gateway.sandbox.stripe.cards import DECLINES, Instrument, decline_codes
from gateway.sandbox.stripe.disputes import open_dispute
from gateway.sandbox.stripe.fraud_warnings import warn
from gateway.sandbox.stripe.objects import Charge, Json, PaymentIntent, PaymentMethod, Review
from gateway.sandbox.stripe.world import World

# What a payment method shows and a charge does not.
_OF_THE_METHOD: Final = frozenset(
    {
        "display_brand",
        "financial_connections_account",
        "generated_from",
        "networks",
        "status_details",
        "three_d_secure_usage",
    }
)


def begin_charge(world: World, intent: PaymentIntent, method: PaymentMethod, authenticated: bool) -> Charge:
    """A charge that is pending: the state of a bank debit, and of a card's charge for an instant."""
    charge_id = world.id_for(Charge)
    return world.put(
        Charge(
            id=charge_id,
            created=world.created,
            amount=intent.amount,
            billing_details=method.billing_details,
            currency=intent.currency,
            customer=intent.customer,
            description=intent.description,
            metadata=intent.metadata,
            outcome=_outcome(world.instruments[method.id]),
            payment_intent=intent.id,
            payment_method=method.id,
            payment_method_details=_details(method, intent.amount, authenticated),
            receipt_email=intent.receipt_email,
            receipt_url=f"{world.origin}/receipts/{charge_id}",
            shipping=intent.shipping,
            statement_descriptor=intent.statement_descriptor,
            statement_descriptor_suffix=intent.statement_descriptor_suffix,
        )
    )


def charge_failed(world: World, charge: Charge, why: str) -> Charge:
    code, decline_code = decline_codes(why)
    blocked = (charge.outcome or {}).get("risk_level") == "highest"
    outcome = {
        **(charge.outcome or {}),
        "network_status": "not_sent_to_network" if blocked else "declined_by_network",
        "reason": "highest_risk_level" if blocked else (decline_code or code),
        "seller_message": "The bank did not return any further details with this decline.",
        "type": "blocked" if blocked else "issuer_declined",
    }
    failed = msgspec.structs.replace(
        charge, status="failed", outcome=outcome, failure_code=code, failure_message=DECLINES[why]
    )
    world.put(failed)
    world.emit("charge.failed", failed)
    return failed


def charge_authorized(world: World, charge: Charge) -> Charge:
    """The money is held at the bank and waits for its capture."""
    held = world.put(msgspec.structs.replace(charge, status="succeeded", paid=True))
    world.emit("charge.succeeded", held)
    return held


def charge_succeeded(world: World, charge: Charge, capture_method: str, amount: int | None = None) -> Charge:
    """The money has moved. The balance transaction may come later, as `automatic_async` says."""
    event = "charge.captured" if charge.status == "succeeded" else "charge.succeeded"
    amount = charge.amount if amount is None else amount
    wait_s = world.settings.balance_transaction_after_s if capture_method == "automatic_async" else 0.0
    paid = world.put(
        msgspec.structs.replace(charge, status="succeeded", paid=True, captured=True, amount_captured=amount)
    )
    if wait_s > 0:
        world.later(wait_s, _book_later, paid.id)
    else:
        paid = _book(world, paid)
    world.emit(event, paid, charge if event == "charge.captured" else None)
    return paid


def _book(world: World, charge: Charge) -> Charge:
    instrument = world.instruments[charge.payment_method]
    amount = charge.amount_captured
    movement = book(
        world,
        "charge" if instrument.kind == "card" else "payment",
        charge.id,
        amount,
        charge.currency,
        category="charge",
        fee=fee_of(world, amount),
        at_once=instrument.available_at_once,
        description=charge.description,
    )
    return world.put(msgspec.structs.replace(charge, balance_transaction=movement.id))


def _book_later(world: World, charge_id: str) -> None:
    before = world.get(Charge, charge_id)
    world.emit("charge.updated", _book(world, before), before)


def follow_up(world: World, charge: Charge) -> None:
    """Leave for later what this charge's card brings upon us."""
    instrument = world.instruments[charge.payment_method]
    courses = {"dispute": _disputed, "not_received": _not_received, "inquiry": _inquired, "fraud_warning": _warned}
    if instrument.later:
        world.later(0.0, courses[instrument.later], charge.id)  # right after the call, as in Stripe's test mode


def _disputed(world: World, charge_id: str) -> None:
    open_dispute(world, charge_id, reason="fraudulent")


def _not_received(world: World, charge_id: str) -> None:
    open_dispute(world, charge_id, reason="product_not_received")


def _inquired(world: World, charge_id: str) -> None:
    open_dispute(world, charge_id, reason="fraudulent", inquiry=True)


def _warned(world: World, charge_id: str) -> None:
    warn(world, charge_id)


def open_review(world: World, charge_id: str) -> Review:
    """Radar wants a person to look at it; charge and intent point to the review."""
    charge = world.get(Charge, charge_id)
    review = Review(
        id=world.id_for(Review), created=world.created, charge=charge.id, payment_intent=charge.payment_intent
    )
    world.put(review)
    world.put(msgspec.structs.replace(charge, review=review.id))
    if charge.payment_intent:
        intent = world.get(PaymentIntent, charge.payment_intent)
        world.put(msgspec.structs.replace(intent, review=review.id))
    world.emit("review.opened", review)
    return review


def close_review(world: World, review_id: str, reason: str = "approved") -> Review:
    review = world.get(Review, review_id)
    closed = msgspec.structs.replace(review, open=False, closed_reason=reason, reason=reason)
    world.put(closed)
    world.emit("review.closed", closed)
    return closed


def _outcome(instrument: Instrument) -> Json:
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "approved_by_network",
        "reason": "elevated_risk_level" if instrument.risk == "elevated" else None,
        "risk_level": instrument.risk,
        "risk_score": {"normal": 20, "elevated": 68, "highest": 92}[instrument.risk],
        "rule": None,
        "seller_message": "Payment complete.",
        "type": "manual_review" if instrument.risk == "elevated" else "authorized",
    }


def _details(method: PaymentMethod, amount: int, authenticated: bool) -> Json:
    if method.type != "card":
        shown = method.us_bank_account or method.sepa_debit or {}
        account = {name: value for name, value in shown.items() if name not in _OF_THE_METHOD}
        return {"type": method.type, method.type: {**account, "mandate": None}}
    card = {name: value for name, value in (method.card or {}).items() if name not in _OF_THE_METHOD}
    secure = {"authentication_flow": "challenge", "result": "authenticated", "version": "2.2.0"}
    return {
        "type": "card",
        "card": {
            **card,
            "amount_authorized": amount,
            "installments": None,
            "mandate": None,
            "network": card["brand"],
            "network_token": {"used": False},
            "setup_credential_usage": None,
            "stored_credential_usage": None,
            "three_d_secure": secure if authenticated else None,
        },
    }
