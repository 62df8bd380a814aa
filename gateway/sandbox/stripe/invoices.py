"""Invoices: the receipt of a Checkout Session, and as much of invoicing by hand as the official CLI's triggers use."""

from typing import Any

import msgspec

from gateway.sandbox.stripe.amounts import currency_of
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.metadata import merged
from gateway.sandbox.stripe.objects import Customer, Invoice, InvoiceItem, Json, LineItem, Metadata, Session
from gateway.sandbox.stripe.transitions import INVOICE, after
from gateway.sandbox.stripe.world import World


def create_invoice_item(
    world: World,
    *,
    customer: str,
    amount: int | None = None,
    currency: str = "usd",
    description: str | None = None,
    metadata: Metadata | None = None,
) -> InvoiceItem:
    world.get(Customer, customer, "customer")
    if amount is None:
        raise invalid("Missing required param: amount.", code="parameter_missing", param="amount")
    item = InvoiceItem(
        id=world.id_for(InvoiceItem),
        amount=amount,
        net_amount=amount,
        currency=currency_of(currency),
        customer=customer,
        date=world.created,
        description=description,
        metadata=metadata or {},
        period={"start": world.created, "end": world.created},
    )
    world.put(item)
    world.emit("invoiceitem.created", item)
    return item


def create_invoice(
    world: World,
    *,
    customer: str,
    description: str | None = None,
    metadata: Metadata | None = None,
    pending_invoice_items_behavior: str = "exclude",
    collection_method: str = "charge_automatically",
    days_until_due: int | None = None,
    auto_advance: bool = False,
) -> Invoice:
    known = world.get(Customer, customer, "customer")
    items = []
    if pending_invoice_items_behavior == "include":
        items = [i for i in world.newest_first(InvoiceItem) if i.customer == customer and i.invoice is None]
    lines = [_line(world, item.amount, item.currency, item.description) for item in items]
    invoice = _draft(
        world,
        known,
        lines,
        items[0].currency if items else "usd",
        description=description,
        metadata=metadata or {},
        collection_method=collection_method,
        auto_advance=auto_advance,
        due_date=world.created + days_until_due * 86_400 if days_until_due else None,
    )
    for item in items:
        world.put(msgspec.structs.replace(item, invoice=invoice.id))
    return invoice


def invoice_for_session(world: World, session: Session) -> Invoice:
    """The paid invoice of a session that asked for one."""
    assert session.customer is not None
    data = (session.invoice_creation or {})["invoice_data"]
    lines = [_session_line(world, item) for item in world.line_items[session.id]]
    taxes = (session.total_details or {})["amount_tax"]
    invoice = _draft(
        world,
        world.get(Customer, session.customer),
        lines,
        session.currency or "usd",
        taxes=taxes,
        total=session.amount_total,
        metadata=data["metadata"] or {},
        description=data["description"],
        footer=data["footer"],
        customer_tax_ids=(session.customer_details or {}).get("tax_ids") or [],
    )
    finalize_invoice(world, invoice.id)
    return paid(world, invoice.id)


def _draft(
    world: World,
    customer: Customer,
    lines: list[Json],
    currency: str,
    *,
    taxes: int = 0,
    total: int | None = None,
    **more: Any,
) -> Invoice:
    subtotal = sum(line["amount"] for line in lines)
    total = subtotal if total is None else total
    invoice_id = world.id_for(Invoice)
    kind = {"inclusive": "inclusive"} if total == subtotal else {"inclusive": "exclusive"}
    taxed = {"amount": taxes, "tax_behavior": kind["inclusive"], "taxability_reason": "standard_rated"}
    taxed |= {"taxable_amount": total - taxes, "type": "tax_rate_details", "tax_rate_details": None}
    invoice = Invoice(
        id=invoice_id,
        created=world.created,
        amount_due=total,
        amount_remaining=total,
        automatic_tax={
            "enabled": bool(taxes),
            "disabled_reason": None,
            "liability": {"type": "self"} if taxes else None,
            "provider": None,
            "status": "complete" if taxes else None,
        },
        currency=currency,
        customer=customer.id,
        customer_address=customer.address,
        customer_email=customer.email,
        customer_name=customer.name,
        lines={"object": "list", "data": lines, "has_more": False, "url": f"/v1/invoices/{invoice_id}/lines"},
        payment_settings=dict.fromkeys(("default_mandate", "payment_method_options", "payment_method_types")),
        period_end=world.created,
        period_start=world.created,
        status_transitions=dict.fromkeys(("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")),
        subtotal=subtotal,
        subtotal_excluding_tax=total - taxes,
        total=total,
        total_excluding_tax=total - taxes,
        total_taxes=[taxed] if taxes else [],
        **more,
    )
    world.put(invoice)
    world.emit("invoice.created", invoice)
    return invoice


def _session_line(world: World, item: LineItem) -> Json:
    return _line(world, item.amount_subtotal, item.currency, item.description, item.quantity)


def _line(world: World, amount: int, currency: str, description: str | None, quantity: int = 1) -> Json:
    return {
        "id": world.new_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": currency,
        "description": description,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "livemode": False,
        "metadata": {},
        "period": {"start": world.created, "end": world.created},
        "quantity": quantity,
        "subscription": None,
        "subtotal": amount,
        "taxes": [],
    }


def _move(world: World, invoice_id: str, verb: str, stamp: str, *events: str, **changes: Any) -> Invoice:
    invoice = world.get(Invoice, invoice_id)
    status = after(INVOICE, "invoice", invoice.status, verb)
    stamps = {**invoice.status_transitions, stamp: world.created}
    moved = world.put(msgspec.structs.replace(invoice, status=status, status_transitions=stamps, **changes))
    for event in events:
        world.emit(event, moved)
    return moved


def finalize_invoice(world: World, invoice_id: str, *, auto_advance: bool | None = None) -> Invoice:
    """`auto_advance` changes nothing: nothing is collected by itself here."""
    number = f"SANDBOX-{world.count(Invoice):04d}"
    page = f"{world.origin}/invoices/{invoice_id}"
    changes = {
        "number": number,
        "hosted_invoice_url": page,
        "invoice_pdf": f"{page}/pdf",
        "effective_at": world.created,
    }
    return _move(world, invoice_id, "finalize", "finalized_at", "invoice.finalized", **changes)


def paid(world: World, invoice_id: str) -> Invoice:
    """Its payment has succeeded."""
    invoice = world.get(Invoice, invoice_id)
    changes = {"amount_paid": invoice.total, "amount_remaining": 0, "attempted": True, "attempt_count": 1}
    return _move(world, invoice_id, "pay", "paid_at", "invoice.paid", "invoice.payment_succeeded", **changes)


def payment_failed(world: World, invoice_id: str, event: str) -> Invoice:
    invoice = world.get(Invoice, invoice_id)
    tried = world.put(msgspec.structs.replace(invoice, attempted=True, attempt_count=invoice.attempt_count + 1))
    world.emit(event, tried)
    return tried


def void_invoice(world: World, invoice_id: str) -> Invoice:
    return _move(world, invoice_id, "void", "voided_at", "invoice.voided")


def write_off_invoice(world: World, invoice_id: str) -> Invoice:
    return _move(world, invoice_id, "write_off", "marked_uncollectible_at", "invoice.marked_uncollectible")


def send_invoice(world: World, invoice_id: str) -> Invoice:
    if world.get(Invoice, invoice_id).status == "draft":
        finalize_invoice(world, invoice_id)
    sent = world.get(Invoice, invoice_id)
    world.emit("invoice.sent", sent)
    return sent


def update_invoice(world: World, invoice_id: str, *, metadata: Metadata | None = None) -> Invoice:
    invoice = world.get(Invoice, invoice_id)
    return world.change("invoice.updated", invoice, metadata=merged(invoice.metadata, metadata))


def delete_invoice(world: World, invoice_id: str) -> Json:
    invoice = world.get(Invoice, invoice_id)
    if invoice.status != "draft":
        raise invalid("You can only delete draft invoices.")
    world.remove(Invoice, invoice_id)
    world.emit("invoice.deleted", invoice)
    return {"id": invoice_id, "object": "invoice", "deleted": True}
