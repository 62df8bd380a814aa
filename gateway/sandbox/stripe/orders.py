"""Orders to the sandbox itself: what banks, customers and time do at the real Stripe. One table, `ORDERS`."""

import inspect
from collections.abc import Callable
from typing import Any, Final

import msgspec

from gateway.sandbox.stripe import (
    attempts,
    books,
    charges,
    checkout,
    disputes,
    endpoints,
    fraud_warnings,
    refunds,
    setup_intents,
)
from gateway.sandbox.stripe.cards import Kind, by_number
from gateway.sandbox.stripe.checkout_payment import pay_session
from gateway.sandbox.stripe.checkout_results import Payer
from gateway.sandbox.stripe.errors import StripeError, invalid
from gateway.sandbox.stripe.objects import Identified, Json, PaymentIntent, Session, SetupIntent
from gateway.sandbox.stripe.payment_methods import make
from gateway.sandbox.stripe.world import World


def pay(
    world: World,
    session_id: str,
    *,
    number: str = "4242424242424242",
    kind: Kind = "card",
    email: str = "customer@example.com",
    name: str | None = "Jenny Rosen",
    country: str | None = "US",
    tax_id: str | None = None,
    authenticates: bool = True,
) -> Session:
    """The customer pays on the page, and passes the bank's challenge if there is one."""
    world.get(Session, session_id)
    instrument = by_number(number, kind)
    address = {"country": country}
    method = make(world, instrument, {"email": email, "name": name, "address": address})
    payer = Payer(email=email, name=name, country=country, tax_id=tax_id)
    session = pay_session(world, session_id, method, payer)
    intent_id = session.payment_intent or session.setup_intent or ""
    if getattr(world.find(intent_id), "status", "") == "requires_action":
        authenticate(world, intent_id, passed=authenticates)
    return world.get(Session, session_id)


def authenticate(world: World, intent_id: str, *, passed: bool = True) -> PaymentIntent | SetupIntent:
    """The customer passes or fails the bank's challenge."""
    if intent_id.startswith("seti_"):
        return setup_intents.authenticate_setup(world, intent_id, passed=passed)
    return attempts.authenticate_payment(world, intent_id, passed=passed)


def add_endpoint(world: World, *, url: str, secret: str, enabled_events: list[str] | None = None) -> Identified:
    """A webhook endpoint with a secret of one's own choice."""
    return endpoints.add_endpoint(world, url, secret, enabled_events or ["*"])


def roll(world: World, endpoint_id: str) -> Json:
    """A new secret for the endpoint; the old one signs beside it."""
    return {"secret": endpoints.roll_secret(world, endpoint_id)}


Order = Callable[..., Any]

# From "kind of object / what happens" to what does it. The object's id, if there is one, stands between the two in the
# path, the rest is the body: POST /_sandbox/charges/ch_1/dispute {"amount": 500}.
ORDERS: Final[dict[str, Order]] = {
    "checkout_sessions/pay": pay,
    "checkout_sessions/expire": checkout.expire_session,
    "payment_intents/authenticate": authenticate,
    "setup_intents/authenticate": authenticate,
    "payment_intents/settle": attempts.end_debit,
    "charges/dispute": disputes.open_dispute,
    "charges/warn": fraud_warnings.warn,
    "charges/review": charges.open_review,
    "reviews/close": charges.close_review,
    "disputes/win": disputes.win,
    "disputes/lose": disputes.lose,
    "disputes/escalate": disputes.escalate,
    "refunds/succeed": refunds.refund_succeeded,
    "refunds/fail": refunds.refund_failed,
    "balance/charge": books.charge_own_fee,
    "payouts/create": books.pay_out_everything,
    "payouts/pay": books.payout_paid,
    "payouts/fail": books.payout_failed,
    "webhook_endpoints/create": add_endpoint,
    "webhook_endpoints/roll": roll,
}


def carry_out(world: World, order: str, object_id: str | None, given: Json) -> Any:
    """Do what `order` names. Raises `StripeError` for what it does not take."""
    call = ORDERS.get(order)
    if call is None:
        raise StripeError(404, "invalid_request_error", f"There is no order {order}; there are {', '.join(ORDERS)}.")
    signature = inspect.signature(call)
    try:
        bound = signature.bind(world, *([object_id] if object_id else []), **given)
    except TypeError as error:
        raise invalid(f"{order}: {error}") from error
    for name, value in given.items():
        try:
            msgspec.convert(value, inspect.get_annotations(call)[name])
        except msgspec.ValidationError as error:
            raise invalid(f"{order}: {name}: {error}", param=name) from error
    return call(*bound.args, **bound.kwargs)
