"""Double entry: which signed amounts each movement of money puts into which bucket. Every transfer sums to zero.

A customer's buckets are credit-positive: `promo` (given, burnt first), `paid` (bought), `debt` (≤ 0: owed); an
account's balance is their sum. Every amount has its contra in a bucket of the system, where a negative one is an outlay
or a claim. `promotions` is the contra of given credit, so that using it is never recognised as revenue:

| movement                   | customer                    | system                                        |
|----------------------------|-----------------------------|-----------------------------------------------|
| grant that pays off debt   | debt +                      | write_off −                                   |
| grant, the rest            | promo +                     | promotions −                                  |
| capture or lapse, promo    | promo −                     | promotions +                                  |
| capture or lapse, the rest | paid −, then debt −         | revenue +, of which rounding + what it added  |
| correction upwards         | as a capture                | as a capture                                  |
| correction downwards       | debt +, then paid +, promo +| revenue − for debt and paid; promotions − for promo |
| top-up                     | debt +, then paid +         | stripe_clearing −                             |
| refund, reversal           | promo −, paid −, then debt −| clearing +, tax −, promotions +, rest revenue |
| tax                        |                             | stripe_clearing −, tax_payable +              |
| Stripe's fees              |                             | stripe_fees −, stripe_clearing +              |
| payout                     |                             | bank −, stripe_clearing +                     |
"""

from enum import StrEnum

import msgspec

from gateway.core.money import MicroCredits


class Bucket(StrEnum):
    PROMO = "promo"
    PAID = "paid"
    DEBT = "debt"
    STRIPE_CLEARING = "stripe_clearing"
    BANK = "bank"
    DEFERRED_REVENUE = "deferred_revenue"
    REVENUE = "revenue"
    TAX_PAYABLE = "tax_payable"
    STRIPE_FEES = "stripe_fees"
    COGS_OPENAI = "cogs_openai"
    BREAKAGE = "breakage"
    ROUNDING = "rounding"
    WRITE_OFF = "write_off"
    PROMOTIONS = "promotions"
    OPENAI_PAYABLE = "openai_payable"


CUSTOMER_BUCKETS = frozenset({Bucket.PROMO, Bucket.PAID, Bucket.DEBT})


class TransferKind(StrEnum):
    CAPTURE = "capture"
    LAPSE = "lapse"
    CORRECTION = "correction"
    GRANT = "grant"
    # By Stripe's doing, in core/accounting/topups.py:
    TOP_UP = "top_up"
    TAX = "tax"
    FEES = "fees"
    REFUND = "refund"  # money given back, with the credits it takes
    REVERSAL = "reversal"  # money that a dispute took or gave back, with its credits
    PAYOUT = "payout"  # to the bank; one that failed, back from it
    # By an operator or the clock, in core/accounting/adjustments.py:
    EXPIRY = "expiry"
    WRITE_OFF = "write_off"
    ADJUSTMENT = "adjustment"
    COGS = "cogs"
    COGS_CORRECTION = "cogs_correction"


class Entry(msgspec.Struct, frozen=True):
    bucket: Bucket
    amount: MicroCredits  # signed, never 0


Entries = tuple[Entry, ...]


class Buckets(msgspec.Struct, frozen=True):
    """What an account has, or what a movement took from it."""

    promo: MicroCredits = 0
    paid: MicroCredits = 0
    debt: MicroCredits = 0

    @property
    def total(self) -> MicroCredits:
        return self.promo + self.paid + self.debt

    def after(self, entries: Entries) -> "Buckets":
        """The buckets once `entries` are posted; the system's entries do not touch them."""
        amounts = {Bucket.PROMO: self.promo, Bucket.PAID: self.paid, Bucket.DEBT: self.debt}
        for entry in entries:
            if entry.bucket in amounts:
                amounts[entry.bucket] += entry.amount
        return Buckets(amounts[Bucket.PROMO], amounts[Bucket.PAID], amounts[Bucket.DEBT])


def entries_for_capture(cost: MicroCredits, rounding: MicroCredits, buckets: Buckets) -> Entries:
    """Charge `cost`: promo first, then paid, the rest becomes debt. A lapse is charged the same way.

    `rounding` is the part of `cost` that rounding up added. It is taken out of what would be revenue, as far as that
    goes: the part that promotional credit pays is no income in the first place.

    >>> [(e.bucket.value, e.amount) for e in entries_for_capture(10, 3, Buckets(promo=4, paid=5))]
    [('promo', -4), ('paid', -5), ('debt', -1), ('promotions', 4), ('revenue', 3), ('rounding', 3)]
    """
    if not 0 <= rounding <= cost:
        raise ValueError(f"rounding {rounding} is not within the cost {cost}")
    promo = min(cost, max(buckets.promo, 0))
    paid = min(cost - promo, max(buckets.paid, 0))
    earned = cost - promo
    rounded = min(rounding, earned)
    return entries_of(
        (Bucket.PROMO, -promo),
        (Bucket.PAID, -paid),
        (Bucket.DEBT, paid - earned),
        (Bucket.PROMOTIONS, promo),
        (Bucket.REVENUE, earned - rounded),
        (Bucket.ROUNDING, rounded),
    )


def entries_for_grant(amount: MicroCredits, buckets: Buckets) -> Entries:
    """Give promotional credit: it pays off debt first, which is then written off; the rest can be spent.

    >>> [(e.bucket.value, e.amount) for e in entries_for_grant(10, Buckets(debt=-4))]
    [('debt', 4), ('write_off', -4), ('promo', 6), ('promotions', -6)]
    """
    if amount <= 0:
        raise ValueError(f"a grant is more than nothing, not {amount}")
    forgiven = min(amount, max(-buckets.debt, 0))
    rest = amount - forgiven
    return entries_of(
        (Bucket.DEBT, forgiven), (Bucket.WRITE_OFF, -forgiven), (Bucket.PROMO, rest), (Bucket.PROMOTIONS, -rest)
    )


def entries_for_correction(charged: MicroCredits, rounding: MicroCredits, buckets: Buckets, taken: Buckets) -> Entries:
    """Correct an earlier charge by `charged`: more is a capture; less is given back, in the reverse order of burning.

    Given back, it first pays off what is owed now; then paid credit returns, no more of it than the charge `taken`
    (amounts ≤ 0, as posted) took as paid or debt; the rest is promotional again. Giving back moves no rounding:
    the lapse that is corrected posted none.

    >>> entries = entries_for_correction(-7, 0, Buckets(debt=-1), taken=Buckets(promo=-5, paid=-3, debt=-1))
    >>> [(e.bucket.value, e.amount) for e in entries]
    [('debt', 1), ('paid', 3), ('promo', 3), ('revenue', -4), ('promotions', -3)]
    """
    if charged >= 0:
        return entries_for_capture(charged, min(rounding, charged), buckets)
    back = -charged
    debt = min(back, max(-buckets.debt, 0))
    earned_before = -(taken.paid + taken.debt)
    paid = min(back - debt, max(earned_before - debt, 0))
    promo = back - debt - paid
    return entries_of(
        (Bucket.DEBT, debt),
        (Bucket.PAID, paid),
        (Bucket.PROMO, promo),
        (Bucket.REVENUE, -(debt + paid)),
        (Bucket.PROMOTIONS, -promo),
    )


def taken_by(entries: Entries) -> Buckets:
    """What a charge took from the customer's buckets (amounts ≤ 0)."""
    return Buckets().after(entries)


def entries_of(*amounts: tuple[Bucket, MicroCredits]) -> Entries:
    return tuple(Entry(bucket, amount) for bucket, amount in amounts if amount)
