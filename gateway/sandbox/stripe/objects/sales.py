"""What is sold, and the Checkout Session in which it is paid."""

from msgspec import field

from gateway.sandbox.stripe.objects.base import Identified, Json, Live, Metadata


class Product(Live, frozen=True, kw_only=True):
    object: str = "product"
    active: bool = True
    default_price: str | None = None
    description: str | None = None
    images: list[str] = field(default_factory=list)
    marketing_features: list[Json] = field(default_factory=list)
    metadata: Metadata = field(default_factory=dict)
    name: str
    package_dimensions: None = None
    shippable: None = None
    statement_descriptor: None = None
    tax_code: str | None = None
    type: str = "service"
    unit_label: None = None
    updated: int
    url: None = None


class Price(Live, frozen=True, kw_only=True):
    object: str = "price"
    active: bool = True
    billing_scheme: str = "per_unit"
    currency: str
    custom_unit_amount: None = None
    lookup_key: str | None = None
    metadata: Metadata = field(default_factory=dict)
    nickname: str | None = None
    product: str
    recurring: None = None
    tax_behavior: str = "unspecified"
    tiers_mode: None = None
    transform_quantity: None = None
    type: str = "one_time"
    unit_amount: int
    unit_amount_decimal: str


class LineItem(Identified, frozen=True, kw_only=True):
    """One line of a Checkout Session."""

    object: str = "item"
    adjustable_quantity: None = None
    amount_discount: int = 0
    amount_subtotal: int
    amount_tax: int = 0
    amount_total: int
    currency: str
    description: str
    metadata: Metadata = field(default_factory=dict)
    price: Price
    quantity: int


class Session(Live, frozen=True, kw_only=True):
    object: str = "checkout.session"
    adaptive_pricing: Json | None = None
    after_expiration: None = None
    allow_promotion_codes: bool | None = None
    amount_subtotal: int | None = None
    amount_total: int | None = None
    automatic_tax: Json
    billing_address_collection: str | None = None
    branding_settings: None = None
    cancel_url: str | None = None
    client_reference_id: str | None = None
    client_secret: None = None
    collected_information: Json | None = None
    consent: Json | None = None
    consent_collection: Json | None = None
    currency: str | None = None
    currency_conversion: None = None
    custom_fields: list[Json] = field(default_factory=list)
    custom_text: Json
    customer: str | None = None
    customer_account: None = None
    customer_creation: str | None = None
    customer_details: Json | None = None
    customer_email: str | None = None
    discounts: list[Json] | None = None
    excluded_payment_method_types: None = None
    expires_at: int
    integration_identifier: None = None
    invoice: str | None = None
    invoice_creation: Json | None = None
    locale: str | None = None
    metadata: Metadata = field(default_factory=dict)
    mode: str
    origin_context: None = None
    payment_intent: str | None = None
    payment_link: None = None
    payment_method_collection: str | None = None
    payment_method_configuration_details: None = None
    payment_method_options: Json = field(default_factory=dict)
    payment_method_types: list[str]
    payment_status: str
    permissions: None = None
    phone_number_collection: Json = field(default_factory=lambda: {"enabled": False})
    recovered_from: None = None
    redirect_on_completion: None = None
    saved_payment_method_options: Json | None = None
    setup_intent: str | None = None
    shipping_address_collection: None = None
    shipping_cost: None = None
    shipping_options: list[Json] = field(default_factory=list)
    status: str = "open"
    submit_type: str | None = None
    subscription: None = None
    success_url: str | None = None
    tax_id_collection: Json | None = None
    total_details: Json | None = None
    ui_mode: str = "hosted_page"
    url: str | None
    wallet_options: None = None


class TaxCalculation(Identified, frozen=True, kw_only=True):
    object: str = "tax.calculation"
    amount_total: int
    currency: str
    customer: str | None
    customer_details: Json
    expires_at: int
    livemode: bool = False
    ship_from_details: None = None
    shipping_cost: None = None
    tax_amount_exclusive: int
    tax_amount_inclusive: int
    tax_breakdown: list[Json]
    tax_date: int
