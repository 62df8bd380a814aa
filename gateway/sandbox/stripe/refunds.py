"""Refunds: never more than was charged; they may stay pending, and fail long after they succeeded."""

import msgspec

from gateway.sandbox.stripe.books import book
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.fraud_warnings import acted_on
from gateway.sandbox.stripe.metadata import merged
from gateway.sandbox.stripe.objects import Charge, Dispute, Metadata, PaymentIntent, Refund
from gateway.sandbox.stripe.transitions import REFUND, after
from gateway.sandbox.stripe.world import World


def create_refund(
    world: World,
    *,
    charge: str | None = None,
    payment_intent: str | None = None,
    amount: int | None = None,
    reason: str | None = None,
    metadata: Metadata | None = None,
) -> Refund:
    charged = _charge(world, charge, payment_intent)
    left = charged.amount_captured - charged.amount_refunded
    if amount is not None and amount < 1:
        raise invalid("Invalid positive integer", code="parameter_invalid_integer", param="amount")
    if charged.amount_refunded and left == 0:
        raise invalid(f"Charge {charged.id} has already been refunded.", code="charge_already_refunded")
    if charged.disputed and not _refundable_in_dispute(world, charged):
        message = f"Charge {charged.id} has been charged back; cannot issue a refund."
        raise invalid(message, code="charge_disputed")
    amount = left if amount is None else amount
    if amount > left:
        raise invalid(
            f"Refund amount ({_dollars(amount)}) is greater than unrefunded amount on charge ({_dollars(left)})",
            code="amount_too_large",
            param="amount",
        )
    return _refund(world, charged, amount, reason, metadata)


def _refund(world: World, charged: Charge, amount: int, reason: str | None, metadata: Metadata | None) -> Refund:
    fate = world.instruments[charged.payment_method].refunds
    method_type = charged.payment_method_details["type"]
    destination = {"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"}
    refund = Refund(
        id=world.id_for(Refund),
        created=world.created,
        amount=amount,
        charge=charged.id,
        currency=charged.currency,
        customer=charged.customer,
        destination_details={"type": method_type, method_type: destination if method_type == "card" else {}},
        metadata=metadata or {},
        payment_intent=charged.payment_intent,
        payment_method=charged.payment_method,
        pending_reason="processing" if fate == "pending" else None,
        reason=reason,
        status="pending" if fate == "pending" else "succeeded",
    )
    kind = "refund" if method_type == "card" else "payment_refund"
    movement = book(world, kind, refund.id, -amount, refund.currency, category="refund", at_once=True)
    refund = world.put(msgspec.structs.replace(refund, balance_transaction=movement.id))
    total = charged.amount_refunded + amount
    world.emit("refund.created", refund)
    is_whole = total == charged.amount_captured
    world.change("charge.refunded", charged, amount_refunded=total, refunded=is_whole)
    if is_whole:
        acted_on(world, charged.id)
    if fate == "pending":
        world.later(world.settings.later_s, _succeed_later, refund.id)
    elif fate == "fail":
        world.later(world.settings.later_s, _fail_later, refund.id)
    return refund


def refund_succeeded(world: World, refund_id: str) -> Refund:
    """A pending refund arrives."""
    refund = world.get(Refund, refund_id)
    status = after(REFUND, "refund", refund.status, "succeed")
    changed = world.change("refund.updated", refund, status=status, pending_reason=None)
    world.emit("charge.refund.updated", changed, refund)
    return changed


def refund_failed(world: World, refund_id: str, reason: str = "lost_or_stolen_card") -> Refund:
    """The bank could not take it: the money is back in our balance, and the charge counts as less refunded."""
    refund = world.get(Refund, refund_id)
    status = after(REFUND, "refund", refund.status, "fail")
    movement = book(
        world, "refund_failure", refund.id, refund.amount, refund.currency, category="refund_failure", at_once=True
    )
    failed = msgspec.structs.replace(
        refund,
        status=status,
        failure_reason=reason,
        failure_balance_transaction=movement.id,
        pending_reason=None,
    )
    world.put(failed)
    charged = world.get(Charge, refund.charge)
    world.put(msgspec.structs.replace(charged, amount_refunded=charged.amount_refunded - refund.amount, refunded=False))
    for event in ("refund.updated", "charge.refund.updated"):
        world.emit(event, failed, refund)
    world.emit("refund.failed", failed)
    return failed


def _succeed_later(world: World, refund_id: str) -> None:
    if world.get(Refund, refund_id).status == "pending":
        refund_succeeded(world, refund_id)


def _fail_later(world: World, refund_id: str) -> None:
    if world.get(Refund, refund_id).status != "failed":
        refund_failed(world, refund_id)


def update_refund(world: World, refund_id: str, *, metadata: Metadata | None = None) -> Refund:
    refund = world.get(Refund, refund_id)
    changed = world.change("refund.updated", refund, metadata=merged(refund.metadata, metadata))
    world.emit("charge.refund.updated", changed, refund)
    return changed


def cancel_refund(world: World, refund_id: str) -> Refund:
    """Only refunds that wait for the customer can be canceled, and none here does."""
    refund = world.get(Refund, refund_id)
    raise invalid(f"The refund {refund.id} cannot be canceled because its status is {refund.status}.")


def _charge(world: World, charge_id: str | None, intent_id: str | None) -> Charge:
    if charge_id is None and intent_id is None:
        raise invalid("One of the following params should be provided for this request: payment_intent or charge.")
    if intent_id is not None:
        intent = world.get(PaymentIntent, intent_id, "payment_intent")
        if intent.status != "succeeded" or intent.latest_charge is None:
            message = f"This PaymentIntent ({intent.id}) does not have a successful charge to refund."
            raise invalid(message, param="payment_intent")
        if charge_id not in (None, intent.latest_charge):
            raise invalid("The charge does not belong to the payment_intent.", param="charge")
        charge_id = intent.latest_charge
    charge = world.get(Charge, charge_id or "", "charge")
    if charge.status != "succeeded":
        raise invalid(f"Charge {charge.id} has not succeeded, so it cannot be refunded.", code="charge_not_refundable")
    return charge


def _refundable_in_dispute(world: World, charge: Charge) -> bool:
    return all(
        dispute.is_charge_refundable or dispute.status == "won"
        for dispute in world.newest_first(Dispute)
        if dispute.charge == charge.id
    )


def _dollars(cents: int) -> str:
    return f"${cents // 100}.{cents % 100:02d}"
