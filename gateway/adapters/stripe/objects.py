"""What Stripe sends and shows, as our own small structs: events, signatures, and the objects that move money."""

from typing import Annotated, Any

import msgspec
import stripe

from gateway.core.accounting.topups import Dispute, Payment, Refund


class BadSignature(Exception):
    """The webhook was not signed by Stripe, or not now."""


class Session(msgspec.Struct, frozen=True):
    id: str
    url: str
    status: str
    payment_status: str
    intent_id: str
    purchase_id: str
    tax_cents: int


class Customer(msgspec.Struct, frozen=True):
    id: str
    is_deleted: bool
    card_id: str = ""
    card: str = ""
    tax_ids: str = ""


class Charged(msgspec.Struct, frozen=True):
    """What became of charging a saved card; `code` is Stripe's word for why it was declined."""

    intent_id: str
    status: str
    code: str = ""


class Cause(msgspec.Struct, frozen=True):
    """Something that may put an account in review; `kind` and `reason` are words for people."""

    id: str
    intent_id: str
    is_open: bool
    kind: str
    reason: str
    cents: int = 0  # 0: Stripe does not say it


class BalanceMovement(msgspec.Struct, frozen=True):
    """A balance transaction: what moved Stripe's balance of ours. Cents; negative is out of it."""

    id: str
    category: str  # Stripe's reporting category: charge, refund, dispute, payout, fee …
    amount_cents: int
    net_cents: int  # less Stripe's fee
    payment_id: str  # the PaymentIntent's, or a charge's that has none; "" for what no payment caused
    source_id: str
    created_s: int
    currency: str


class Told(msgspec.Struct, frozen=True):
    """An event, as far as its handling needs it; what its object says is not believed."""

    id: str
    type: str
    object_id: str
    payment_id: str
    is_live: bool
    created_s: int
    body: bytes


def verify(body: bytes, signature: str, secrets: tuple[str, ...], *, tolerance_s: int, now_s: float) -> None:
    """Raise `BadSignature` unless one of `secrets` signed `body`, not longer ago nor further ahead than `tolerance_s`.

    The SDK refuses old timestamps only, takes a tolerance of 0 for none, and cannot compare what is not ASCII.
    """
    if not signature.isascii():
        raise BadSignature("it is not ASCII")
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(body, signature, secret)
            signed_s = next(int(part[2:]) for part in signature.split(",") if part.startswith("t="))
        except (stripe.SignatureVerificationError, ValueError):
            continue
        if abs(now_s - signed_s) > tolerance_s:
            raise BadSignature(f"signed {now_s - signed_s:.0f} s ago")
        return
    raise BadSignature("no secret fits")


# What PostgreSQL can store. Stripe's own are far within it.
_Text = Annotated[str, msgspec.Meta(max_length=255, pattern=r"^[^\x00]*$")]
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]  # of Unix, until the end of the year 9999


class _Named(msgspec.Struct):
    id: _Text


_Reference = _Text | _Named | None


class _Object(msgspec.Struct):
    id: _Text = ""
    object: str = ""
    payment_intent: _Reference = None
    customer: _Reference = None


class _Before(msgspec.Struct):
    customer: _Reference = None


class _Data(msgspec.Struct):
    object: _Object
    previous_attributes: _Before | None = None


class _Event(msgspec.Struct):
    id: _Text
    type: _Text
    created: _Seconds
    livemode: bool
    data: _Data


def told(body: bytes) -> Told:
    """Read an event. Raises `msgspec.DecodeError` for what is none, or could never be stored."""
    event = msgspec.json.decode(body, type=_Event)
    about = event.data.object
    payment_id = about.id if about.object == "payment_intent" else id_of(about.payment_intent)
    object_id = about.id
    if about.object in ("payment_method", "tax_id", "setup_intent"):  # the customer's, or until now: one was detached
        before = event.data.previous_attributes
        object_id = id_of(about.customer or (before.customer if before else None))
    return Told(event.id, event.type, object_id, payment_id, event.livemode, event.created, body)


def id_of(reference: Any) -> str:
    """The id of an object that is there as itself, as its id, or not at all."""
    if isinstance(reference, str):
        return reference
    if isinstance(reference, dict):
        return str(reference.get("id", ""))
    return "" if reference is None else str(reference.id)


def read_session(found: stripe.checkout.Session) -> Session:
    totals = found.total_details
    return Session(
        found.id,
        found.url or "",
        found.status or "",
        found.payment_status,
        id_of(found.payment_intent),
        found.client_reference_id or "",
        totals.amount_tax if totals else 0,
    )


def read_payment(
    intent: stripe.PaymentIntent,
    charge: stripe.Charge | None,
    refunds: tuple[Refund, ...],
    disputes: tuple[Dispute, ...],
) -> Payment:
    booked = charge.balance_transaction if charge is not None else None
    return Payment(
        intent_id=intent.id,
        purchase_id=metadata_of(intent, "purchase_id"),
        status=intent.status,
        received_cents=intent.amount_received,
        currency=intent.currency,
        is_live=intent.livemode,
        fee_cents=booked.fee if isinstance(booked, stripe.BalanceTransaction) else 0,
        refunds=refunds,
        disputes=disputes,
        receipt_url=(charge.receipt_url or "") if charge is not None else "",
    )


def read_refund(found: stripe.Refund) -> Refund:
    return Refund(found.id, found.amount, found.status or "", metadata_of(found, "refund_id"))


def read_charged(intent: stripe.PaymentIntent) -> Charged:
    """Without its customer a payment cannot go on, so one that waits for them was declined."""
    if intent.status in ("succeeded", "processing"):
        return Charged(intent.id, intent.status)
    error = intent.last_payment_error
    code = "authentication_required" if intent.status == "requires_action" else (error.code if error else None)
    return Charged(intent.id, "declined", code or intent.status)


def read_dispute(found: stripe.Dispute) -> Dispute:
    booked = found.balance_transactions
    withdrawn, fee = -sum(each.amount for each in booked), sum(each.fee for each in booked)
    return Dispute(found.id, found.amount, found.status, withdrawn, fee, found.reason)


def metadata_of(found: Any, name: str) -> str:
    kept = found.metadata
    return "" if kept is None else str(kept.to_dict().get(name, ""))


def read_movement(movement: stripe.BalanceTransaction) -> BalanceMovement:
    """`source` must be expanded: it names the payment."""
    source = movement.source
    payment_id = id_of(getattr(source, "payment_intent", None))
    if not payment_id and movement.reporting_category == "charge":
        payment_id = id_of(source)
    return BalanceMovement(
        id=movement.id,
        category=movement.reporting_category,
        amount_cents=movement.amount,
        net_cents=movement.net,
        payment_id=payment_id,
        source_id=id_of(source),
        created_s=movement.created,
        currency=movement.currency,
    )
