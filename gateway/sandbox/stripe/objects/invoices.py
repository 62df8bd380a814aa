"""Invoices and what is on them."""

from msgspec import field

from gateway.sandbox.stripe.objects.base import Identified, Json, Live, Metadata


class Invoice(Live, frozen=True, kw_only=True):
    object: str = "invoice"
    account_country: str = "US"
    account_name: str = "Tollgate Sandbox"
    account_tax_ids: None = None
    amount_due: int
    amount_overpaid: int = 0
    amount_paid: int = 0
    amount_remaining: int
    amount_shipping: int = 0
    application: None = None
    attempt_count: int = 0
    attempted: bool = False
    auto_advance: bool = False
    automatic_tax: Json
    automatically_finalizes_at: None = None
    billing_reason: str = "manual"
    collection_method: str = "charge_automatically"
    currency: str
    custom_fields: None = None
    customer: str
    customer_account: None = None
    customer_address: Json | None = None
    customer_email: str | None = None
    customer_name: str | None = None
    customer_phone: str | None = None
    customer_shipping: None = None
    customer_tax_exempt: str = "none"
    customer_tax_ids: list[Json] = field(default_factory=list)
    default_payment_method: str | None = None
    default_source: None = None
    default_tax_rates: list[Json] = field(default_factory=list)
    description: str | None = None
    discounts: list[Json] = field(default_factory=list)
    due_date: int | None = None
    effective_at: int | None = None
    ending_balance: int | None = None
    footer: str | None = None
    from_invoice: None = None
    hosted_invoice_url: str | None = None
    invoice_pdf: str | None = None
    issuer: Json = field(default_factory=lambda: {"type": "self"})
    last_finalization_error: None = None
    latest_revision: None = None
    lines: Json
    metadata: Metadata = field(default_factory=dict)
    next_payment_attempt: None = None
    number: str | None = None
    on_behalf_of: None = None
    parent: None = None
    payment_settings: Json
    period_end: int
    period_start: int
    post_payment_credit_notes_amount: int = 0
    pre_payment_credit_notes_amount: int = 0
    receipt_number: None = None
    rendering: None = None
    shipping_cost: None = None
    shipping_details: None = None
    starting_balance: int = 0
    statement_descriptor: None = None
    status: str = "draft"
    status_transitions: Json
    subtotal: int
    subtotal_excluding_tax: int
    test_clock: None = None
    total: int
    total_discount_amounts: list[Json] = field(default_factory=list)
    total_excluding_tax: int
    total_pretax_credit_amounts: list[Json] = field(default_factory=list)
    total_taxes: list[Json] = field(default_factory=list)
    webhooks_delivered_at: int | None = None


class InvoiceItem(Identified, frozen=True, kw_only=True):
    object: str = "invoiceitem"
    amount: int
    currency: str
    customer: str
    customer_account: None = None
    date: int
    description: str | None
    discountable: bool = True
    discounts: list[Json] = field(default_factory=list)
    invoice: str | None = None
    livemode: bool = False
    metadata: Metadata = field(default_factory=dict)
    net_amount: int
    parent: None = None
    period: Json
    pricing: Json | None = None
    proration: bool = False
    quantity: int = 1
    quantity_decimal: str = "1"
    tax_rates: list[Json] = field(default_factory=list)
    test_clock: None = None
