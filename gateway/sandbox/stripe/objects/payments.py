"""Payments on their way, and what is thought of them."""

from msgspec import field

from gateway.sandbox.stripe.objects.base import Json, Live, Metadata


class PaymentIntent(Live, frozen=True, kw_only=True):
    object: str = "payment_intent"
    amount: int
    amount_capturable: int = 0
    amount_details: Json = field(default_factory=lambda: {"tip": {}})
    amount_received: int = 0
    application: None = None
    application_fee_amount: None = None
    automatic_payment_methods: Json | None = None
    canceled_at: int | None = None
    cancellation_reason: str | None = None
    capture_method: str = "automatic_async"
    client_secret: str
    confirmation_method: str = "automatic"
    currency: str
    customer: str | None = None
    customer_account: None = None
    description: str | None = None
    excluded_payment_method_types: None = None
    hooks: Json | None = None
    last_payment_error: Json | None = None
    latest_charge: str | None = None
    metadata: Metadata = field(default_factory=dict)
    next_action: Json | None = None
    on_behalf_of: None = None
    payment_method: str | None = None
    payment_method_configuration_details: None = None
    payment_method_options: Json = field(default_factory=dict)
    payment_method_types: list[str]
    payment_record: None = None
    processing: None = None
    receipt_email: str | None = None
    review: str | None = None
    setup_future_usage: str | None = None
    shipping: Json | None = None
    source: None = None
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None
    status: str = "requires_payment_method"
    transfer_data: None = None
    transfer_group: None = None


class SetupIntent(Live, frozen=True, kw_only=True):
    object: str = "setup_intent"
    application: None = None
    attach_to_self: bool = False
    automatic_payment_methods: Json | None = None
    cancellation_reason: str | None = None
    client_secret: str
    customer: str | None = None
    customer_account: None = None
    description: str | None = None
    excluded_payment_method_types: None = None
    flow_directions: None = None
    last_setup_error: Json | None = None
    latest_attempt: None = None
    mandate: None = None
    metadata: Metadata = field(default_factory=dict)
    next_action: Json | None = None
    on_behalf_of: None = None
    payment_method: str | None = None
    payment_method_configuration_details: None = None
    payment_method_options: Json = field(default_factory=dict)
    payment_method_types: list[str]
    single_use_mandate: None = None
    status: str = "requires_payment_method"
    usage: str = "off_session"


class Charge(Live, frozen=True, kw_only=True):
    object: str = "charge"
    amount: int
    amount_captured: int = 0
    amount_refunded: int = 0
    application: None = None
    application_fee: None = None
    application_fee_amount: None = None
    balance_transaction: str | None = None
    billing_details: Json
    calculated_statement_descriptor: str | None = "TOLLGATE SANDBOX"
    captured: bool = False
    currency: str
    customer: str | None = None
    description: str | None = None
    disputed: bool = False
    failure_balance_transaction: None = None
    failure_code: str | None = None
    failure_message: str | None = None
    fraud_details: Json = field(default_factory=dict)
    metadata: Metadata = field(default_factory=dict)
    on_behalf_of: None = None
    outcome: Json | None = None
    paid: bool = False
    payment_intent: str | None
    payment_method: str
    payment_method_details: Json
    presentment_details: None = None
    receipt_email: str | None = None
    receipt_number: None = None
    receipt_url: str | None = None
    refunded: bool = False
    review: str | None = None
    shipping: Json | None = None
    source: None = None
    source_transfer: None = None
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None
    status: str = "pending"
    transfer: None = None
    transfer_data: None = None
    transfer_group: None = None


class EarlyFraudWarning(Live, frozen=True, kw_only=True):
    object: str = "radar.early_fraud_warning"
    actionable: bool = True
    charge: str
    fraud_type: str = "made_with_stolen_card"
    payment_intent: str | None


class Review(Live, frozen=True, kw_only=True):
    object: str = "review"
    billing_zip: None = None
    charge: str | None
    closed_reason: str | None = None
    ip_address: None = None
    ip_address_location: None = None
    open: bool = True
    opened_reason: str = "rule"
    payment_intent: str | None
    reason: str = "rule"
    session: None = None
