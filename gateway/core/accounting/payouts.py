"""What must be in the ledger of Stripe's balance beside payments: payouts, and what Stripe charges for itself.

A payout leaves Stripe's balance when it is made, so that is when it is booked; one that fails comes back.
"""

import msgspec

from gateway.core.accounting.topups import UCR_PER_CENT, Mismatch
from gateway.core.money import MicroCredits

CURRENCY = "usd"
# Final, both: whoever says otherwise has read the payout earlier.
RETURNED = frozenset({"failed", "canceled"})
# Stripe's reporting categories. Source: docs.stripe.com/reports/reporting-categories
OF_PAYOUTS = frozenset({"payout", "payout_reversal"})
OF_OWN_FEES = frozenset({"fee", "network_cost", "tax"})


class Payout(msgspec.Struct, frozen=True):
    id: str
    amount_cents: int  # negative: Stripe took it from the bank
    currency: str
    status: str
    is_automatic: bool  # only of such Stripe tells what is in them


class OwnFee(msgspec.Struct, frozen=True):
    """What Stripe charged that belongs to no payment, such as Radar or Billing: one of its balance transactions."""

    id: str
    cents: int  # negative: given back
    currency: str


def target(payout: Payout, known_status: str) -> MicroCredits:
    """What of the payout has to stand in the books. Raises `Mismatch`.

    >>> paid = Payout("po_1", 500, "usd", "paid", True)
    >>> target(paid, "in_transit"), target(paid, "failed")
    (5000000000, 0)
    """
    _in_our_currency(payout)
    return 0 if RETURNED & {payout.status, known_status} else payout.amount_cents * UCR_PER_CENT


def charged(fee: OwnFee) -> MicroCredits:
    """What Stripe took for itself. Raises `Mismatch`."""
    _in_our_currency(fee)
    return fee.cents * UCR_PER_CENT


def _in_our_currency(moved: Payout | OwnFee) -> None:
    if moved.currency != CURRENCY:
        raise Mismatch(f"{moved.id} is in {moved.currency}; the books are in {CURRENCY}")
