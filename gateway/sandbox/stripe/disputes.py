"""Disputes: opened by the bank, answered by us, won or lost; an inquiry moves no money unless it escalates."""

from typing import Any, Final

import msgspec

from gateway.sandbox.stripe.books import book
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.fraud_warnings import acted_on
from gateway.sandbox.stripe.metadata import merged
from gateway.sandbox.stripe.objects import Charge, Dispute, Json, Metadata
from gateway.sandbox.stripe.transitions import DISPUTE, after
from gateway.sandbox.stripe.world import World

_EVIDENCE: Final = (
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
)


def open_dispute(
    world: World, charge_id: str, *, amount: int | None = None, reason: str = "fraudulent", inquiry: bool = False
) -> Dispute:
    """The cardholder disputes `amount` cents, by default all that was not refunded."""
    charge = world.get(Charge, charge_id, "charge")
    amount = charge.amount - charge.amount_refunded if amount is None else amount
    if charge.status != "succeeded" or not 0 < amount <= charge.amount:
        raise invalid("The sandbox disputes succeeded charges only, up to their amount.", param="amount")
    dispute = Dispute(
        id=world.id_for(Dispute),
        created=world.created,
        amount=amount,
        charge=charge.id,
        currency=charge.currency,
        evidence={**dict.fromkeys(_EVIDENCE), "enhanced_evidence": {}},
        evidence_details={
            "due_by": world.created + 7 * 86_400,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        is_charge_refundable=inquiry,
        network_reason_code="10.4",
        payment_intent=charge.payment_intent,
        payment_method_details={
            "type": "card",
            "card": {
                "brand": "visa",
                "case_type": "inquiry" if inquiry else "chargeback",
                "network": "visa",
                "network_reason_code": "10.4",
            },
        },
        reason=reason,
        status="warning_needs_response" if inquiry else "needs_response",
    )
    world.put(dispute)
    # Stripe does not say whether an inquiry makes its charge `disputed`: nobody may rely on it.
    world.put(msgspec.structs.replace(charge, disputed=charge.disputed or not inquiry))
    acted_on(world, charge.id)
    if inquiry:
        world.emit("charge.dispute.created", dispute)
        return dispute
    with_money = _withdraw(world, dispute)
    world.emit("charge.dispute.created", with_money)
    world.emit("charge.dispute.funds_withdrawn", with_money)
    return with_money


def _withdraw(world: World, dispute: Dispute) -> Dispute:
    movement = book(
        world,
        "adjustment",
        dispute.id,
        -dispute.amount,
        dispute.currency,
        category="dispute",
        fee=world.settings.dispute_fee,
        at_once=True,
        description=f"Chargeback withdrawal for {dispute.charge}",
    )
    return world.put(msgspec.structs.replace(dispute, balance_transactions=[*dispute.balance_transactions, movement]))


def escalate(world: World, dispute_id: str) -> Dispute:
    """An inquiry becomes a dispute: now the money goes."""
    dispute = world.get(Dispute, dispute_id)
    status = after(DISPUTE, "dispute", dispute.status, "escalate")
    card = {**dispute.payment_method_details["card"], "case_type": "chargeback"}
    changed = msgspec.structs.replace(
        dispute, status=status, is_charge_refundable=False, payment_method_details={"type": "card", "card": card}
    )
    world.put(msgspec.structs.replace(world.get(Charge, dispute.charge), disputed=True))
    escalated = _withdraw(world, changed)
    world.emit("charge.dispute.updated", escalated, dispute)
    world.emit("charge.dispute.funds_withdrawn", escalated)
    return escalated


def win(world: World, dispute_id: str) -> Dispute:
    """The bank decides for us: the amount comes back, the fee does not."""
    dispute = world.get(Dispute, dispute_id)
    status = after(DISPUTE, "dispute", dispute.status, "win")
    movement = book(
        world,
        "adjustment",
        dispute.id,
        dispute.amount,
        dispute.currency,
        category="dispute_reversal",
        at_once=True,
        description=f"Chargeback reversal for {dispute.charge}",
    )
    won = msgspec.structs.replace(
        dispute, status=status, balance_transactions=[*dispute.balance_transactions, movement]
    )
    world.put(won)
    world.emit("charge.dispute.funds_reinstated", won)
    world.emit("charge.dispute.closed", won)
    return won


def lose(world: World, dispute_id: str) -> Dispute:
    return _end(world, dispute_id, "lose")


def close_dispute(world: World, dispute_id: str) -> Dispute:
    """We give up: lost; an inquiry is closed without loss."""
    return _end(world, dispute_id, "close")


def _end(world: World, dispute_id: str, how: str) -> Dispute:
    dispute = world.get(Dispute, dispute_id)
    ended = msgspec.structs.replace(dispute, status=after(DISPUTE, "dispute", dispute.status, how))
    world.put(ended)
    world.emit("charge.dispute.closed", ended)
    return ended


def update_dispute(
    world: World,
    dispute_id: str,
    *,
    evidence: Json | None = None,
    submit: bool = True,
    metadata: Metadata | None = None,
) -> Dispute:
    """Give evidence. As in Stripe's test mode, its `uncategorized_text` may decide: `winning_evidence` and so on."""
    dispute = world.get(Dispute, dispute_id)
    changes: dict[str, Any] = {"metadata": merged(dispute.metadata, metadata)}
    if evidence:
        changes["evidence"] = {**dispute.evidence, **evidence}
        changes["evidence_details"] = {**dispute.evidence_details, "has_evidence": True}
        if submit:
            changes["status"] = after(DISPUTE, "dispute", dispute.status, "submit")
            changes["evidence_details"]["submission_count"] = dispute.evidence_details["submission_count"] + 1
            changes["evidence_details"]["submission_method"] = "manual"
    updated = world.change("charge.dispute.updated", dispute, **changes)
    decided = {"winning_evidence": _won, "losing_evidence": _lost, "escalate_inquiry_evidence": _escalated}
    course = decided.get((evidence or {}).get("uncategorized_text", ""))
    if course is not None and submit:
        world.later(world.settings.later_s, course, dispute.id)
    return updated


def _won(world: World, dispute_id: str) -> None:
    win(world, dispute_id)


def _lost(world: World, dispute_id: str) -> None:
    lose(world, dispute_id)


def _escalated(world: World, dispute_id: str) -> None:
    escalate(world, dispute_id)
