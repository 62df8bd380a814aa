"""An open invoice is paid by a payment intent of its own."""

from gateway.sandbox.stripe import invoices
from gateway.sandbox.stripe.errors import StripeError, invalid
from gateway.sandbox.stripe.intents import create_payment_intent
from gateway.sandbox.stripe.objects import Customer, Invoice
from gateway.sandbox.stripe.world import World


def pay_invoice(
    world: World, invoice_id: str, *, payment_method: str | None = None, off_session: bool = True
) -> Invoice:
    """Charge the given or the customer's default payment method. Raises the 402 of a decline."""
    invoice = world.get(Invoice, invoice_id)
    if invoice.status == "draft":
        invoice = invoices.finalize_invoice(world, invoice_id)
    if invoice.status != "open":
        raise invalid(f"Invoice is already {invoice.status}", code="invoice_not_editable")
    customer = world.get(Customer, invoice.customer)
    method = payment_method or customer.invoice_settings["default_payment_method"]
    if method is None:
        raise invalid("There is no `default_payment_method` set on this Customer or Invoice.")
    try:
        create_payment_intent(
            world,
            amount=invoice.amount_due,
            currency=invoice.currency,
            customer=customer.id,
            payment_method=method,
            confirm=True,
            off_session=off_session,
        )
    except StripeError as error:
        needs_action = error.members.get("code") == "authentication_required"
        event = "invoice.payment_action_required" if needs_action else "invoice.payment_failed"
        invoices.payment_failed(world, invoice_id, event)
        raise
    return invoices.paid(world, invoice_id)
