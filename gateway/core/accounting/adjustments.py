"""Movements that no call and no purchase makes: expiry, write-offs, an operator's corrections, payouts, OpenAI's costs.

Each gives the entries of one transfer, which sum to zero; the signs are those of `core/accounting/ledger.py`.

| movement             | customer                      | system                                          |
|----------------------|-------------------------------|-------------------------------------------------|
| expiry               | promo −, then paid −          | promotions + for promo, breakage + for paid     |
| write-off            | debt +                        | write_off −                                     |
| adjustment upwards   | debt +, then paid +           | revenue −                                       |
| adjustment downwards | as a capture                  | as a capture                                    |
| payout               |                               | stripe_clearing +, bank −                       |
| Stripe's own fee     |                               | stripe_fees −, stripe_clearing +                |
| a model's day        |                               | cogs_openai −, openai_payable +                 |
"""

from gateway.core.accounting.ledger import Bucket, Buckets, Entries, entries_for_capture, entries_of
from gateway.core.money import MicroCredits


def entries_for_expiry(amount: MicroCredits, buckets: Buckets) -> Entries:
    """Take back credit that was not used in time. Only what was paid for becomes income: breakage.

    >>> [(e.bucket.value, e.amount) for e in entries_for_expiry(5, Buckets(promo=3, paid=4))]
    [('promo', -3), ('promotions', 3), ('paid', -2), ('breakage', 2)]
    """
    if not 0 < amount <= max(buckets.promo, 0) + max(buckets.paid, 0):
        raise ValueError("more than nothing, and no more than what is left of promotional and paid credit, can expire")
    promo = min(amount, max(buckets.promo, 0))
    paid = amount - promo
    return entries_of((Bucket.PROMO, -promo), (Bucket.PROMOTIONS, promo), (Bucket.PAID, -paid), (Bucket.BREAKAGE, paid))


def entries_for_write_off(amount: MicroCredits, buckets: Buckets) -> Entries:
    """Forgive debt that will not be paid."""
    if not 0 < amount <= -buckets.debt:
        raise ValueError("more than nothing, and no more than what is owed, can be written off")
    return entries_of((Bucket.DEBT, amount), (Bucket.WRITE_OFF, -amount))


def entries_for_adjustment(amount: MicroCredits, buckets: Buckets) -> Entries:
    """Correct what was charged: upwards gives it back, debt first; downwards charges more, as a capture does.

    >>> [(e.bucket.value, e.amount) for e in entries_for_adjustment(5, Buckets(debt=-2))]
    [('debt', 2), ('paid', 3), ('revenue', -5)]
    """
    if amount == 0:
        raise ValueError("an adjustment of nothing is none")
    if amount < 0:
        return entries_for_capture(-amount, 0, buckets)
    debt = min(amount, max(-buckets.debt, 0))
    return entries_of((Bucket.DEBT, debt), (Bucket.PAID, amount - debt), (Bucket.REVENUE, -amount))


def entries_for_payout(amount: MicroCredits) -> Entries:
    """Money went from Stripe to the bank; a negative amount came back."""
    return entries_of((Bucket.STRIPE_CLEARING, amount), (Bucket.BANK, -amount))


def entries_for_own_fee(amount: MicroCredits) -> Entries:
    """Stripe took something for itself that belongs to no payment; a negative amount it gave back."""
    return entries_of((Bucket.STRIPE_FEES, -amount), (Bucket.STRIPE_CLEARING, amount))


def entries_for_cogs(amount: MicroCredits) -> Entries:
    """Book what OpenAI will ask for; a negative amount corrects what was booked too high."""
    return entries_of((Bucket.COGS_OPENAI, -amount), (Bucket.OPENAI_PAYABLE, amount))
