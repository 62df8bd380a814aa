"""Which of Stripe's events concern us, and what is looked at again because of them: one table.

An event only says that something may have changed. What did is read from Stripe, so no event is ever trusted or added.
"""

from enum import StrEnum


class Subject(StrEnum):
    SESSION = "session"  # a Checkout Session, and the payment it led to
    PAYMENT = "payment"  # a PaymentIntent with its charge, refunds and disputes
    WARNING = "warning"  # an early fraud warning: the account is looked at
    REVIEW = "review"  # Radar's, likewise
    PAYOUT = "payout"  # money that goes to the bank, or comes back from it
    CUSTOMER = "customer"  # who pays, and with which saved card
    NONE = "none"  # deliberately nothing


_SUBJECTS = {
    Subject.SESSION: (
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed",
        "checkout.session.expired",
    ),
    Subject.PAYMENT: (
        "payment_intent.succeeded",
        "payment_intent.payment_failed",
        "payment_intent.requires_action",
        "payment_intent.processing",
        "payment_intent.canceled",
        "charge.succeeded",
        "charge.updated",  # its fee is known now
        "charge.refunded",
        "charge.refund.updated",
        "refund.created",
        "refund.updated",
        "refund.failed",
        "charge.dispute.created",
        "charge.dispute.updated",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.funds_reinstated",
        "charge.dispute.closed",
    ),
    Subject.WARNING: ("radar.early_fraud_warning.created", "radar.early_fraud_warning.updated"),
    Subject.REVIEW: ("review.opened", "review.closed"),
    Subject.PAYOUT: ("payout.created", "payout.updated", "payout.paid", "payout.failed", "payout.canceled"),
    Subject.CUSTOMER: (
        "customer.updated",
        "customer.deleted",
        "customer.tax_id.created",
        "customer.tax_id.updated",
        "customer.tax_id.deleted",
        "payment_method.attached",
        "payment_method.detached",
        "payment_method.updated",
        "payment_method.automatically_updated",
        "setup_intent.succeeded",
    ),
    # Said again by an event above, or no concern of the ledger until the daily reconciliation reads it from Stripe.
    Subject.NONE: (
        "payment_intent.created",
        "charge.pending",
        "charge.failed",
        "customer.created",
        "setup_intent.created",
        "setup_intent.requires_action",
        "setup_intent.setup_failed",
        "payout.reconciliation_completed",
        "invoice.created",
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_succeeded",
        "balance.available",
    ),
}

SUBJECTS: dict[str, Subject] = {kind: subject for subject, kinds in _SUBJECTS.items() for kind in kinds}

# What a backfill asks Stripe for: the events that did not arrive.
HANDLED = tuple(kind for kind, subject in SUBJECTS.items() if subject is not Subject.NONE)


def subject_of(kind: str) -> Subject:
    """What an event of this kind makes us look at; an unknown kind is none of our business.

    >>> subject_of("charge.refunded").value, subject_of("product.created").value
    ('payment', 'none')
    """
    return SUBJECTS.get(kind, Subject.NONE)
