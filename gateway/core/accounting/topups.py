"""What a purchase must have put into the ledger, as a function of what Stripe says of it now; and what is missing.

Events are never added up: `target` reads the present facts, and `movements` posts target minus posted. So events that
come twice, late, in another order or not at all cannot change where a purchase ends.
"""

from enum import StrEnum
from typing import Literal

import msgspec

from gateway.core.accounting.ledger import Bucket, Buckets, Entries, TransferKind, entries_for_grant, entries_of
from gateway.core.money import MicroCredits, divide_half_up

UCR_PER_CENT = 10_000_000

Freeze = Literal["account", "amount"]  # what an open dispute freezes


class PurchaseState(StrEnum):
    CREATED = "created"  # our row alone
    OPEN = "open"  # the customer has a page to pay on
    PROCESSING = "processing"  # a debit is under way
    PAID = "paid"
    FAILED = "failed"
    EXPIRED = "expired"
    MISMATCHED = "mismatched"  # something was paid that is not what we sold: nothing was granted


class Order(msgspec.Struct, frozen=True):
    """What we sold, from our own row. One cent buys 10 credits, whatever anybody else says; bonus comes on top."""

    amount_cents: int
    currency: str
    is_live: bool
    bonus: MicroCredits = 0

    @property
    def paid(self) -> MicroCredits:
        return self.amount_cents * UCR_PER_CENT

    @property
    def granted(self) -> MicroCredits:
        return self.paid + self.bonus


class Refund(msgspec.Struct, frozen=True):
    id: str
    cents: int
    status: str
    ours: str = ""  # the id of our own row, when we asked for it

    @property
    def counts(self) -> bool:
        """Whether it gave, or will give, money back. One that failed or was canceled never did."""
        return self.status in ("succeeded", "pending", "requires_action")


class Dispute(msgspec.Struct, frozen=True):
    id: str
    cents: int
    status: str
    withdrawn_cents: int = 0  # what left our balance at Stripe, less what came back
    fee_cents: int = 0
    reason: str = ""

    @property
    def is_open(self) -> bool:
        """Whether the bank has not decided for us, inquiries included. One that is lost is left to an operator."""
        return self.status not in ("won", "warning_closed", "prevented")


class Payment(msgspec.Struct, frozen=True):
    """A PaymentIntent with its charge, refunds and disputes, as Stripe shows them now."""

    intent_id: str
    purchase_id: str
    status: str
    received_cents: int
    currency: str
    is_live: bool
    fee_cents: int = 0
    refunds: tuple[Refund, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    receipt_url: str = ""


class Facts(msgspec.Struct, frozen=True):
    """What of a payment moves our books. Cents; all 0 until it is paid."""

    received: int = 0
    tax: int = 0
    fees: int = 0
    refunded: int = 0
    withdrawn: int = 0


class Standing(msgspec.Struct, frozen=True):
    """What of one purchase is in the ledger, or should be. µcr, each a running total since its first movement."""

    paid: MicroCredits = 0
    bonus: MicroCredits = 0
    tax: MicroCredits = 0
    fees: MicroCredits = 0
    refunded: MicroCredits = 0  # money, tax included
    tax_returned: MicroCredits = 0
    refund_reversed: MicroCredits = 0  # credits
    withdrawn: MicroCredits = 0  # money, by disputes
    dispute_reversed: MicroCredits = 0  # credits
    promo_taken: MicroCredits = 0  # of the credits reversed, what was there as promotional; no target has it

    @property
    def reversed(self) -> MicroCredits:
        return self.refund_reversed + self.dispute_reversed


class Movement(msgspec.Struct, frozen=True):
    kind: TransferKind
    entries: Entries


class Posting(msgspec.Struct, frozen=True):
    """What brings the ledger from one standing to the next."""

    movements: tuple[Movement, ...]
    standing: Standing
    buckets: Buckets


class Mismatch(Exception):
    """What was paid is not what was sold. Nothing is granted; an operator decides."""


_DISPUTES_OPEN = frozenset({"needs_response", "under_review"})


def facts_of(payment: Payment, order: Order, *, tax_cents: int, promised_cents: int, freeze: Freeze) -> Facts:
    """Read `payment` against `order`; raises `Mismatch`.

    `promised_cents` are refunds that we have decided on and Stripe does not show yet. A disputed amount counts once
    it was withdrawn, or at once where the policy is to freeze the amount.
    """
    if payment.status != "succeeded":
        return Facts()
    if payment.is_live != order.is_live:
        raise Mismatch("the payment is in test mode and the purchase is not, or the other way round")
    if payment.currency != order.currency:
        raise Mismatch(f"paid in {payment.currency}, sold in {order.currency}")
    if payment.received_cents != order.amount_cents + tax_cents:
        raise Mismatch(f"paid {payment.received_cents} cents, sold {order.amount_cents} and {tax_cents} of tax")
    refunded = sum(each.cents for each in payment.refunds if each.counts)
    return Facts(
        received=payment.received_cents,
        tax=tax_cents,
        fees=payment.fee_cents + sum(each.fee_cents for each in payment.disputes),
        refunded=refunded + promised_cents,
        withdrawn=sum(_withdrawn(each, freeze) for each in payment.disputes),
    )


def _withdrawn(dispute: Dispute, freeze: Freeze) -> int:
    if freeze == "amount" and dispute.status in _DISPUTES_OPEN:
        return max(dispute.cents, dispute.withdrawn_cents)
    return dispute.withdrawn_cents


def state_of(*, session: str, paid: str, intent: str) -> PurchaseState:
    """A purchase's state by the statuses of its Checkout Session, of the session's payment, and of the PaymentIntent.

    >>> state_of(session="complete", paid="unpaid", intent="requires_payment_method").value
    'failed'
    """
    if intent == "succeeded":
        return PurchaseState.PAID
    if session == "expired":
        return PurchaseState.EXPIRED
    if intent == "processing":
        return PurchaseState.PROCESSING
    if session == "complete" and paid == "unpaid":
        return PurchaseState.FAILED if intent in ("requires_payment_method", "canceled") else PurchaseState.PROCESSING
    return PurchaseState.OPEN


def target(order: Order, facts: Facts) -> Standing:
    """Where the ledger must stand. What is taken back is a share of the whole grant, and never more than it.

    >>> order = Order(amount_cents=5000, currency="usd", is_live=False, bonus=5_000_000_000)
    >>> target(order, Facts(received=5000, refunded=500)).refund_reversed == order.granted // 10
    True
    """
    if facts.received == 0:
        return Standing()
    by_refunds = _share(order.granted, facts.refunded, facts.received)
    by_all = _share(order.granted, facts.refunded + facts.withdrawn, facts.received)
    return Standing(
        paid=order.paid,
        bonus=order.bonus,
        tax=facts.tax * UCR_PER_CENT,
        fees=facts.fees * UCR_PER_CENT,
        refunded=facts.refunded * UCR_PER_CENT,
        tax_returned=_share(facts.tax * UCR_PER_CENT, facts.refunded, facts.received),
        refund_reversed=by_refunds,
        withdrawn=facts.withdrawn * UCR_PER_CENT,
        dispute_reversed=by_all - by_refunds,
    )


def _share(amount: MicroCredits, part_cents: int, whole_cents: int) -> MicroCredits:
    return divide_half_up(amount * min(max(part_cents, 0), whole_cents), whole_cents)


def refundable_cents(order: Order, posted: Standing, available: MicroCredits, buckets: Buckets) -> int:
    """The most that can be paid back of a purchase, tax included: what was not yet, and whose credits are unused.

    `available` is what the account can spend, `buckets` what the ledger has. Of promotional credit only the purchase's
    own bonus counts: a gift is not paid out.
    """
    bonus_left = min(max(buckets.promo, 0), order.bonus - posted.promo_taken)
    available = min(available, max(buckets.paid, 0) + bonus_left)
    received = order.amount_cents + posted.tax // UCR_PER_CENT
    left = received - (posted.refunded + posted.withdrawn) // UCR_PER_CENT
    if posted.paid == 0 or left <= 0 or available <= 0:
        return 0
    cents = min(left, available * received // order.granted)
    # Rounding may take a little more than is there.
    return cents if _share(order.granted, cents, received) <= available else cents - 1


def cents_for(order: Order, posted: Standing, credits: MicroCredits) -> int:
    """What is paid back for this many paid credits, tax included. Raises `ValueError` for a part of a cent.

    >>> cents_for(Order(500, "usd", False), Standing(), 100_000_000)
    10
    """
    cents, rest = divmod(credits, UCR_PER_CENT)
    if rest or cents <= 0:
        raise ValueError("credits are refunded by the cent, which is 10 of them")
    return divide_half_up(cents * (order.amount_cents + posted.tax // UCR_PER_CENT), order.amount_cents)


def movements(order: Order, posted: Standing, wanted: Standing, buckets: Buckets) -> Posting:
    """The transfers that bring `posted` to `wanted`, and the account's `buckets` behind them."""
    made: list[Movement] = []

    def move(kind: TransferKind, entries: Entries) -> None:
        nonlocal buckets
        if entries:
            made.append(Movement(kind, entries))
            buckets = buckets.after(entries)

    move(TransferKind.TOP_UP, _topped_up(wanted.paid - posted.paid, buckets))
    if wanted.bonus > posted.bonus:
        move(TransferKind.GRANT, entries_for_grant(wanted.bonus - posted.bonus, buckets))
    move(TransferKind.TAX, _between(Bucket.STRIPE_CLEARING, Bucket.TAX_PAYABLE, wanted.tax - posted.tax))
    move(TransferKind.FEES, _between(Bucket.STRIPE_FEES, Bucket.STRIPE_CLEARING, wanted.fees - posted.fees))
    taken, promo_taken = posted.reversed, posted.promo_taken
    causes = [
        (
            wanted.refund_reversed - posted.refund_reversed,
            wanted.refunded - posted.refunded,
            wanted.tax_returned - posted.tax_returned,
            TransferKind.REFUND,
        ),
        (
            wanted.dispute_reversed - posted.dispute_reversed,
            wanted.withdrawn - posted.withdrawn,
            0,
            TransferKind.REVERSAL,
        ),
    ]
    for credits, money, tax, kind in sorted(causes):  # what is given back goes first, so that no debt comes between
        if credits >= 0:
            customer = _taken(credits, order.bonus - promo_taken, buckets)
        else:
            customer = _given_back(-credits, taken - promo_taken, buckets)
        taken += credits
        promo_taken -= sum(entry.amount for entry in customer if entry.bucket is Bucket.PROMO)
        promo_taken = max(0, min(promo_taken, taken))  # what paid off a debt instead is promotional no more
        move(kind, _balanced(customer, money, tax))
    standing = msgspec.structs.replace(wanted, promo_taken=promo_taken)
    return Posting(tuple(made), standing, buckets)


def _topped_up(paid: MicroCredits, buckets: Buckets) -> Entries:
    """Money came in: what is owed is paid first."""
    owed = min(paid, max(-buckets.debt, 0))
    return entries_of((Bucket.DEBT, owed), (Bucket.PAID, paid - owed), (Bucket.STRIPE_CLEARING, -paid))


def _between(outlay: Bucket, other: Bucket, amount: MicroCredits) -> Entries:
    return entries_of((outlay, -amount), (other, amount))


def _taken(credits: MicroCredits, bonus_left: MicroCredits, buckets: Buckets) -> Entries:
    """The purchase's bonus first, as far as it is still there, then paid credit; what is spent already is owed."""
    promo = min(credits, bonus_left, max(buckets.promo, 0))
    paid = min(credits - promo, max(buckets.paid, 0))
    return entries_of((Bucket.PROMO, -promo), (Bucket.PAID, -paid), (Bucket.DEBT, promo + paid - credits))


def _given_back(credits: MicroCredits, unpromotional: MicroCredits, buckets: Buckets) -> Entries:
    """In the reverse order: what is owed now, then paid credit as much as was taken of it, then promotional."""
    owed = min(credits, max(-buckets.debt, 0))
    paid = min(credits, unpromotional)
    promo = credits - max(paid, owed)
    return entries_of((Bucket.DEBT, owed), (Bucket.PAID, max(paid - owed, 0)), (Bucket.PROMO, promo))


def _balanced(customer: Entries, money: MicroCredits, tax: MicroCredits) -> Entries:
    """`customer` with its contra: promotional credit in promotions, money at Stripe; the rest is revenue or its loss.

    Bonus goes first, so a part refund gives back more money than it takes paid credit; and what is owed for a bonus
    that was used up is income. Over a whole refund the two cancel out.
    """
    promo = sum(entry.amount for entry in customer if entry.bucket is Bucket.PROMO)
    unpromotional = sum(entry.amount for entry in customer) - promo
    return customer + entries_of(
        (Bucket.PROMOTIONS, -promo),
        (Bucket.STRIPE_CLEARING, money),
        (Bucket.TAX_PAYABLE, -tax),
        (Bucket.REVENUE, tax - unpromotional - money),
    )
