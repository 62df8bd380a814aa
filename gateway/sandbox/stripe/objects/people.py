"""Customers, and what belongs to them."""

from msgspec import field

from gateway.sandbox.stripe.objects.base import Json, Live, Metadata, no_billing_details


class Customer(Live, frozen=True, kw_only=True):
    object: str = "customer"
    address: Json | None = None
    balance: int = 0
    business_name: str | None = None
    currency: str | None = None
    customer_account: None = None
    default_source: None = None
    delinquent: bool = False
    description: str | None = None
    discount: None = None
    email: str | None = None
    individual_name: str | None = None
    invoice_prefix: str
    invoice_settings: Json
    metadata: Metadata = field(default_factory=dict)
    name: str | None = None
    next_invoice_sequence: int = 1
    phone: str | None = None
    preferred_locales: list[str] = field(default_factory=list)
    shipping: Json | None = None
    tax_exempt: str = "none"
    test_clock: None = None


def _verified() -> Json:
    return {"status": "verified", "verified_address": None, "verified_name": None}


class TaxId(Live, frozen=True, kw_only=True):
    object: str = "tax_id"
    country: str
    customer: str | None
    customer_account: None = None
    owner: Json
    type: str
    value: str
    verification: Json = field(default_factory=lambda: _verified())


class PaymentMethod(Live, frozen=True, kw_only=True):
    object: str = "payment_method"
    allow_redisplay: str = "unspecified"
    billing_details: Json = field(default_factory=no_billing_details)
    card: Json | None = None
    customer: str | None = None
    customer_account: None = None
    metadata: Metadata = field(default_factory=dict)
    sepa_debit: Json | None = None
    type: str
    us_bank_account: Json | None = None


class PortalSession(Live, frozen=True, kw_only=True):
    object: str = "billing_portal.session"
    configuration: str = "bpc_sandbox"
    customer: str
    customer_account: None = None
    flow: None = None
    locale: str | None = None
    on_behalf_of: None = None
    return_url: str | None
    url: str
