"""Money that moves back, and the books of it all."""

from msgspec import field

from gateway.sandbox.stripe.objects.base import Json, Live, Metadata, Resource


class BalanceTransaction(Resource, frozen=True, kw_only=True):
    object: str = "balance_transaction"
    amount: int
    available_on: int
    balance_type: str = "payments"
    currency: str
    description: str | None = None
    exchange_rate: None = None
    fee: int
    fee_details: list[Json]
    net: int
    reporting_category: str
    source: str | None
    status: str = "pending"
    type: str


class Refund(Resource, frozen=True, kw_only=True):
    object: str = "refund"
    amount: int
    balance_transaction: str | None = None
    charge: str
    currency: str
    customer: str | None = None
    customer_account: None = None
    destination_details: Json
    failure_balance_transaction: str | None = None
    failure_reason: str | None = None
    metadata: Metadata = field(default_factory=dict)
    payment_intent: str | None = None
    payment_method: str | None = None
    pending_reason: str | None = None
    reason: str | None = None
    receipt_number: None = None
    source_transfer_reversal: None = None
    status: str = "succeeded"
    transfer_reversal: None = None


class Dispute(Live, frozen=True, kw_only=True):
    object: str = "dispute"
    amount: int
    balance_transactions: list[BalanceTransaction] = field(default_factory=list)
    charge: str
    currency: str
    enhanced_eligibility_types: list[str] = field(default_factory=list)
    evidence: Json
    evidence_details: Json
    is_charge_refundable: bool
    metadata: Metadata = field(default_factory=dict)
    network_reason_code: str | None = None
    payment_intent: str | None
    payment_method_details: Json
    reason: str
    status: str


class Payout(Live, frozen=True, kw_only=True):
    object: str = "payout"
    amount: int
    application_fee: None = None
    application_fee_amount: None = None
    arrival_date: int
    automatic: bool
    balance_transaction: str | None = None
    currency: str
    description: str | None
    destination: str = "ba_sandbox"
    failure_balance_transaction: str | None = None
    failure_code: str | None = None
    failure_message: str | None = None
    metadata: Metadata = field(default_factory=dict)
    method: str = "standard"
    original_payout: None = None
    payout_method: None = None
    reconciliation_status: str
    reversed_by: None = None
    source_type: str = "card"
    statement_descriptor: None = None
    status: str = "in_transit"
    trace_id: Json | None = None
    type: str = "bank_account"
