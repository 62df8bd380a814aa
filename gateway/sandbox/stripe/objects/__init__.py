"""Stripe's objects in the shape of the pinned API version, with the values that a plain payment has.

They are frozen, and so are the dicts inside them by agreement: a change is a new object, and what an event shows stays
what it was. An id of None is a field that nothing here fills.
"""

from gateway.sandbox.stripe.objects.base import (
    Identified,
    Json,
    Live,
    Metadata,
    Resource,
    no_address,
    no_billing_details,
)
from gateway.sandbox.stripe.objects.invoices import Invoice, InvoiceItem
from gateway.sandbox.stripe.objects.money import BalanceTransaction, Dispute, Payout, Refund
from gateway.sandbox.stripe.objects.notices import Event, WebhookEndpoint
from gateway.sandbox.stripe.objects.payments import Charge, EarlyFraudWarning, PaymentIntent, Review, SetupIntent
from gateway.sandbox.stripe.objects.people import Customer, PaymentMethod, PortalSession, TaxId
from gateway.sandbox.stripe.objects.sales import LineItem, Price, Product, Session, TaxCalculation

__all__ = [
    "BalanceTransaction",
    "Charge",
    "Customer",
    "Dispute",
    "EarlyFraudWarning",
    "Event",
    "Identified",
    "Invoice",
    "InvoiceItem",
    "Json",
    "LineItem",
    "Live",
    "Metadata",
    "PaymentIntent",
    "PaymentMethod",
    "Payout",
    "PortalSession",
    "Price",
    "Product",
    "Refund",
    "Resource",
    "Review",
    "Session",
    "SetupIntent",
    "TaxCalculation",
    "TaxId",
    "WebhookEndpoint",
    "no_address",
    "no_billing_details",
]
