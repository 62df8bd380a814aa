"""What a payout must have put into the ledger, as a function of what Stripe says of it.

It leaves Stripe's balance when it is made, so that is when it is booked; one that fails comes back.
"""

import msgspec

from gateway.core.money import MicroCredits
from gateway.core.topups import UCR_PER_CENT, Mismatch

CURRENCY = "usd"
# Final, both: whoever says otherwise has read the payout earlier.
RETURNED = frozenset({"failed", "canceled"})


class Payout(msgspec.Struct, frozen=True):
    id: str
    amount_cents: int  # negative: Stripe took it from the bank
    currency: str
    status: str
    is_automatic: bool  # only of such Stripe tells what is in them


def target(payout: Payout, known_status: str) -> MicroCredits:
    """What of the payout has to stand in the books. Raises `Mismatch`.

    >>> paid = Payout("po_1", 500, "usd", "paid", True)
    >>> target(paid, "in_transit"), target(paid, "failed")
    (5000000000, 0)
    """
    if payout.currency != CURRENCY:
        raise Mismatch(f"paid out in {payout.currency}; the books are in {CURRENCY}")
    return 0 if RETURNED & {payout.status, known_status} else payout.amount_cents * UCR_PER_CENT
