"""Checkout Sessions: made by us, paid by the customer on Stripe's page, in one currency."""

from typing import Final

import msgspec

from gateway.sandbox.stripe.amounts import currency_of
from gateway.sandbox.stripe.checkout_lines import check_lines, line, priced
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.intents import OPEN, cancel_payment_intent
from gateway.sandbox.stripe.metadata import merged
from gateway.sandbox.stripe.objects import Customer, Json, Metadata, PaymentIntent, Session
from gateway.sandbox.stripe.simulated import checked
from gateway.sandbox.stripe.transitions import SESSION, after
from gateway.sandbox.stripe.urls import checked_url
from gateway.sandbox.stripe.world import World

_INTENT_DATA: Final = frozenset(
    (
        "capture_method",
        "description",
        "metadata",
        "receipt_email",
        "setup_future_usage",
        "shipping",
        "statement_descriptor",
        "statement_descriptor_suffix",
    )
)
_SETUP_DATA: Final = frozenset({"description", "metadata"})
_TEXTS: Final = ("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")


def create_session(
    world: World,
    *,
    mode: str | None = None,
    line_items: list[Json] | None = None,
    success_url: str | None = None,
    cancel_url: str | None = None,
    ui_mode: str = "hosted_page",
    customer: str | None = None,
    customer_email: str | None = None,
    customer_creation: str | None = None,
    customer_update: Json | None = None,
    client_reference_id: str | None = None,
    metadata: Metadata | None = None,
    payment_intent_data: Json | None = None,
    setup_intent_data: Json | None = None,
    allowed_payment_method_types: list[str] | None = None,
    payment_method_types: list[str] | None = None,
    payment_method_options: Json | None = None,
    currency: str | None = None,
    expires_at: int | None = None,
    automatic_tax: Json | None = None,
    tax_id_collection: Json | None = None,
    adaptive_pricing: Json | None = None,
    invoice_creation: Json | None = None,
    consent_collection: Json | None = None,
    custom_text: Json | None = None,
    billing_address_collection: str | None = None,
    allow_promotion_codes: bool | None = None,
    saved_payment_method_options: Json | None = None,
    locale: str | None = None,
    submit_type: str | None = None,
) -> Session:
    """A session that is open for payment. There are no promotion codes to enter, and the page is in English."""
    if mode not in ("payment", "setup"):
        raise invalid("The sandbox simulates the modes payment and setup.", param="mode")
    if ui_mode != "hosted_page":
        raise invalid("The sandbox simulates the ui_mode hosted_page only.", param="ui_mode")
    if not success_url:
        raise invalid("Missing required param: success_url.", code="parameter_missing", param="success_url")
    if customer and customer_email:
        raise invalid("You may only specify one of these parameters: customer, customer_email.", param="customer")
    _check_intent_data(payment_intent_data or {}, setup_intent_data or {})
    taxed, collects = bool((automatic_tax or {}).get("enabled")), bool((tax_id_collection or {}).get("enabled"))
    known = world.get(Customer, customer, "customer") if customer else None
    _check_customer(known, customer_update, taxed, collects)
    items = [line(world, each, index) for index, each in enumerate(line_items or [])]
    if mode == "payment":
        check_lines(world, items)
    country = ((known.address if known else None) or {}).get("country")
    session_id = world.id_for(Session)
    future = (payment_intent_data or {}).get("setup_future_usage")
    session = Session(
        id=session_id,
        created=world.created,
        mode=mode,
        expires_at=_expiry(world, expires_at),
        url=f"{world.origin}/c/pay/{session_id}",
        success_url=checked_url(success_url, "success_url"),
        cancel_url=checked_url(cancel_url, "cancel_url"),
        customer=customer,
        customer_email=customer_email,
        customer_creation=customer_creation or ("always" if future else "if_required") if not customer else None,
        customer_details={**_no_details(), "email": customer_email} if customer_email else None,
        client_reference_id=client_reference_id,
        metadata=metadata or {},
        payment_method_types=allowed_payment_method_types
        or payment_method_types
        or list(world.settings.checkout_methods),
        payment_method_options=payment_method_options or {},
        currency=items[0].currency if items else currency_of(currency or "usd"),
        payment_status="unpaid" if mode == "payment" else "no_payment_required",
        automatic_tax=_automatic_tax(taxed, country),
        tax_id_collection={"enabled": collects, "required": "never"},
        adaptive_pricing=adaptive_pricing or {"enabled": True},
        invoice_creation=_invoice_creation(invoice_creation) if mode == "payment" else None,
        consent_collection=consent_collection,
        custom_text=dict.fromkeys(_TEXTS) | (custom_text or {}),
        billing_address_collection=billing_address_collection,
        allow_promotion_codes=allow_promotion_codes,
        saved_payment_method_options=saved_payment_method_options,
        locale=locale,
        submit_type=submit_type,
    )
    world.plans[session_id] = {
        "intent": payment_intent_data or {},
        "setup": setup_intent_data or {},
        "customer_update": customer_update or {},
    }
    world.line_items[session_id] = items
    session = priced(world, session, country, business=False)
    world.put(session)
    world.later(session.expires_at - world.now, _expire_if_open, session_id)
    return session


def _check_intent_data(payment: Json, setup: Json) -> None:
    checked(payment, _INTENT_DATA, frozenset(), "payment_intent_data")
    if payment.get("capture_method") == "manual":
        raise invalid("The sandbox does not simulate manual capture in Checkout.", param="payment_intent_data")
    checked(setup, _SETUP_DATA, frozenset(), "setup_intent_data")


def _automatic_tax(taxed: bool, country: str | None) -> Json:
    if not taxed:
        return {"enabled": False, "liability": None, "provider": None, "status": None}
    status = "complete" if country else "requires_location_inputs"
    return {"enabled": True, "liability": {"type": "self"}, "provider": "stripe", "status": status}


def _check_customer(customer: Customer | None, update: Json | None, taxed: bool, collects: bool) -> None:
    """What Stripe refuses about an existing customer whose address or name it may not change."""
    if customer is None:
        if update:
            raise invalid("`customer_update` can only be used with `customer`.", param="customer_update")
        return
    may = update or {}
    if taxed and may.get("address") != "auto" and not (customer.address or {}).get("country"):
        raise invalid(
            "Automatic tax calculation in Checkout requires a valid address on the Customer. Add a valid address to "
            "the Customer or set either `customer_update[address]` to 'auto' or `customer_update[shipping]` to 'auto' "
            "to save the address entered in Checkout to the Customer.",
            code="customer_tax_location_invalid",
            param="automatic_tax",
        )
    if collects and may.get("name") != "auto":
        raise invalid(
            "Tax ID collection requires updating business name on the customer. To enable tax ID collection for an "
            "existing customer, please set `customer_update[name]` to `auto`.",
            param="tax_id_collection",
        )


def _expiry(world: World, asked: int | None) -> int:
    if asked is None:
        return world.created + 86_400
    if not world.created + 1_790 <= asked <= world.created + 86_410:
        message = "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation."
        raise invalid(message, param="expires_at")
    return asked


def _no_details() -> Json:
    names = "address business_name email individual_name name phone tax_exempt tax_ids"
    return {**dict.fromkeys(names.split()), "tax_exempt": "none"}


def _invoice_creation(given: Json | None) -> Json:
    data = dict.fromkeys(
        ("account_tax_ids", "custom_fields", "description", "footer", "issuer", "metadata", "rendering_options")
    )
    given = given or {}
    return {"enabled": bool(given.get("enabled")), "invoice_data": data | (given.get("invoice_data") or {})}


def expire_session(world: World, session_id: str) -> Session:
    session = world.get(Session, session_id)
    if (session.status, "expire") not in SESSION:
        message = (
            'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status of '
        )
        raise invalid(f"{message}{session.status}.")
    expired = msgspec.structs.replace(session, status=after(SESSION, "session", session.status, "expire"), url=None)
    world.put(expired)
    world.emit("checkout.session.expired", expired)
    if session.payment_intent and world.get(PaymentIntent, session.payment_intent).status in OPEN:
        cancel_payment_intent(world, session.payment_intent)
    return expired


def _expire_if_open(world: World, session_id: str) -> None:
    if world.get(Session, session_id).status == "open":
        expire_session(world, session_id)


def update_session(world: World, session_id: str, *, metadata: Metadata | None = None) -> Session:
    session = world.get(Session, session_id)
    return world.put(msgspec.structs.replace(session, metadata=merged(session.metadata, metadata)))
