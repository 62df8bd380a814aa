"""What a payment or setup intent's fate means for the Checkout Session that it belongs to."""

import msgspec

from gateway.sandbox.stripe import tax
from gateway.sandbox.stripe.customers import create_tax_id, tax_ids_of
from gateway.sandbox.stripe.invoices import invoice_for_session
from gateway.sandbox.stripe.objects import Json, PaymentIntent, Session, SetupIntent, no_address
from gateway.sandbox.stripe.transitions import SESSION, after
from gateway.sandbox.stripe.world import World


class Payer(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer fills in on the payment page, beside the card."""

    email: str = "customer@example.com"
    name: str | None = None
    country: str | None = "US"
    line1: str | None = None
    postal_code: str | None = None
    tax_id: str | None = None  # a business number, if the session collects them
    business_name: str | None = None


def intent_moved(world: World, intent: PaymentIntent) -> None:
    """The intent was paid, is being paid by debit, or its debit failed."""
    session_id = world.session_of.get(intent.id)
    if session_id is None:
        return
    session = world.get(Session, session_id)
    if session.status == "open":
        _complete(world, session, "paid" if intent.status == "succeeded" else "unpaid")
    elif intent.status == "succeeded":
        paid = world.put(msgspec.structs.replace(session, payment_status="paid"))
        world.emit("checkout.session.async_payment_succeeded", _invoiced(world, paid))
    else:
        world.emit("checkout.session.async_payment_failed", session)


def setup_moved(world: World, intent: SetupIntent) -> None:
    """The card was saved."""
    session_id = world.session_of.get(intent.id)
    if session_id is not None:
        _complete(world, world.get(Session, session_id), "no_payment_required")


def _complete(world: World, session: Session, payment_status: str) -> None:
    payer: Payer = world.plans[session.id]["payer"]
    consents = session.consent_collection
    done = msgspec.structs.replace(
        session,
        status=after(SESSION, "session", session.status, "complete"),
        payment_status=payment_status,
        url=None,
        customer_details=_details(world, session, payer),
        automatic_tax=session.automatic_tax | ({"status": "complete"} if session.automatic_tax["enabled"] else {}),
        consent={"promotions": None, "terms_of_service": "accepted"} if consents else None,
    )
    world.put(done)
    if payment_status == "paid":
        done = _invoiced(world, done)
    world.emit("checkout.session.completed", done)


def _details(world: World, session: Session, payer: Payer) -> Json:
    tax_ids: list[Json] = []
    if payer.tax_id and (session.tax_id_collection or {}).get("enabled"):
        given = {"type": tax.tax_id_type(payer.country), "value": payer.tax_id}
        tax_ids = [given]
        if session.customer and payer.tax_id not in [each.value for each in tax_ids_of(world, session.customer)]:
            create_tax_id(world, session.customer, **given)
    address = {"country": payer.country, "line1": payer.line1, "postal_code": payer.postal_code}
    return {
        "address": no_address() | address,
        "business_name": payer.business_name,
        "email": payer.email,
        "individual_name": None,
        "name": payer.name,
        "phone": None,
        "tax_exempt": "reverse" if tax_ids and payer.country != world.settings.seller_country else "none",
        "tax_ids": tax_ids,
    }


def _invoiced(world: World, session: Session) -> Session:
    if not (session.invoice_creation or {}).get("enabled") or session.customer is None:
        return session
    invoice = invoice_for_session(world, session)
    return world.put(msgspec.structs.replace(session, invoice=invoice.id))
