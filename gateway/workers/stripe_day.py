"""A day at Stripe beside the same payments in our books: what came in, what it cost, what went back, what was paid out,
and what Stripe took for itself.

A payment's sums are compared as they stand now, so a day's edges cannot cut them apart. Nothing is written.
"""

from datetime import date, timedelta

from gateway.adapters.postgres.provider_costs import day_start
from gateway.adapters.postgres.reconciliation import BookedPayment, ReconciliationReads
from gateway.adapters.stripe.client import Stripe, StripeRefused, StripeUnavailable
from gateway.adapters.stripe.objects import BalanceMovement
from gateway.core.accounting.payouts import OF_OWN_FEES, OF_PAYOUTS, RETURNED, Payout
from gateway.core.accounting.reconciliation import (
    Check,
    DayCosts,
    PaymentSums,
    amounts,
    compare,
    in_words,
    none_of,
    not_checked,
    payment_checks,
)
from gateway.core.accounting.topups import Freeze, Mismatch, facts_of
from gateway.workers.payments import UNBOOKABLE

# A payment may be made before midnight, and its balance transaction written behind it: Stripe takes up to an hour.
WRITTEN_LATE = timedelta(days=1)


class StripeDay:
    """`late_days`: how long before its top-up a payment may have been made, if we were away."""

    label = "Stripe's balance transactions"

    def __init__(
        self, stripe: Stripe, books: ReconciliationReads, *, freeze: Freeze, late_days: int, ppm_max: int
    ) -> None:
        self._stripe = stripe
        self._books = books
        self._freeze: Freeze = freeze
        self._late = timedelta(days=late_days)
        self._ppm_max = ppm_max

    async def checks(self, of: DayCosts) -> tuple[Check, ...]:
        """Raises `LedgerUnavailable`."""
        try:
            return await self._checks(of.day)
        except (StripeUnavailable, StripeRefused) as error:
            return (not_checked("payments at Stripe", f"Stripe: {error}", is_outage=True),)
        except UNBOOKABLE as error:  # no reason to tell nothing of the rest of the day
            return (not_checked("payments at Stripe", f"Stripe: {error!r}", is_outage=True),)

    async def _checks(self, day: date) -> tuple[Check, ...]:
        start, end = day_start(day), day_start(day + timedelta(days=1))
        charges: dict[str, BalanceMovement] = {}
        moved_again: set[str] = set()  # by a refund, a dispute …
        of_day: set[str] = set()
        of_stripe: list[BalanceMovement] = []  # that day, and no payment's
        async for movement in self._stripe.balance_movements(
            int((start - self._late).timestamp()), int((end + WRITTEN_LATE).timestamp())
        ):
            if movement.category == "charge":
                charges[movement.payment_id] = movement
            else:
                moved_again.add(movement.payment_id)
            if start.timestamp() <= movement.created_s < end.timestamp():
                of_day.add(movement.payment_id)
                if not movement.payment_id:
                    of_stripe.append(movement)
        topped_up = await self._books.topped_up(day)
        asked = (of_day | topped_up) - {""}
        # What was bought in test mode, on the day of going live, is at another Stripe.
        booked = {
            intent: each
            for intent, each in (await self._books.payments(asked)).items()
            if each.order.is_live == self._stripe.is_live
        }
        at_stripe = {
            intent: await self._sums(intent, charges.get(intent), booked.get(intent), moved_again=intent in moved_again)
            for intent in sorted(asked)
            if intent in of_day or intent in charges
        }
        in_books = {intent: each.sums for intent, each in booked.items()}
        checks = payment_checks(at_stripe, in_books, ppm_max=self._ppm_max)
        return (*checks, *await self._payouts(of_stripe, day), *await self._own(of_stripe))

    async def _sums(
        self, intent: str, charge: BalanceMovement | None, booked: BookedPayment | None, *, moved_again: bool
    ) -> PaymentSums:
        """What Stripe has of a payment: by its balance transaction alone, if neither it nor the books have more."""
        fee = 0 if charge is None else charge.amount_cents - charge.net_cents
        received = 0 if charge is None else charge.amount_cents
        alone = PaymentSums(received, fee, 0)
        if booked is None or (booked.sums == alone and not moved_again):
            return alone
        payment = await self._stripe.payment(intent)
        if charge is None:
            received, fee = payment.received_cents, payment.fee_cents
        shown = {each.ours for each in payment.refunds}
        promised = sum(cents for name, cents in booked.refunds.items() if name not in shown)
        try:
            facts = facts_of(payment, booked.order, tax_cents=booked.tax, promised_cents=promised, freeze=self._freeze)
        except Mismatch:
            return PaymentSums(received, fee, 0)
        disputes_fee = sum(each.fee_cents for each in payment.disputes)
        return PaymentSums(received, fee + disputes_fee, facts.refunded + facts.withdrawn)

    async def _payouts(self, movements: list[BalanceMovement], day: date) -> tuple[Check, Check]:
        """A payout is booked, and made of balance transactions that are in the books as well."""
        moved = {each.source_id for each in movements if each.category in OF_PAYOUTS}
        booked = await self._books.payouts(moved, day, is_live=self._stripe.is_live)
        payouts = [each for name in sorted(moved | booked.keys()) if (each := await self._payout(name)) is not None]
        due = {each.id: (0 if each.status in RETURNED else each.amount_cents) for each in payouts}
        pairs = {name: (due.get(name, 0), booked.get(name, 0)) for name in due.keys() | booked.keys()}
        parts = [await self._parts_of(each) for each in payouts if each.is_automatic]
        return (
            amounts("payouts in the books", pairs, ppm_max=self._ppm_max),
            compare(
                "payouts made of booked payments",
                "cents",
                sum(cents for cents, _, _ in parts),
                sum(known for _, known, _ in parts),
                off=sum(abs(cents - known) for cents, known, _ in parts),
                ppm_max=self._ppm_max,
                notes=[note for _, _, notes in parts for note in notes],
            ),
        )

    async def _payout(self, payout_id: str) -> Payout | None:
        """None if Stripe does not have it."""
        try:
            return await self._stripe.payout(payout_id)
        except StripeRefused as error:
            if error.code != "resource_missing":
                raise
            return None

    async def _parts_of(self, payout: Payout) -> tuple[int, int, list[str]]:
        """The cents of an automatic payout; those of its parts that the books account for; and the other parts."""
        parts = [each async for each in self._stripe.movements_of_payout(payout.id) if each.source_id != payout.id]
        payments = await self._books.payments({each.payment_id for each in parts} - {""})
        fees = await self._books.own_fees(each.id for each in parts if each.category in OF_OWN_FEES)
        missing = [
            each
            for each in parts
            # What an earlier payout brought back from the bank is in the books with that one.
            if each.payment_id not in payments and each.id not in fees and each.category not in OF_PAYOUTS
        ]
        known = sum(each.net_cents for each in parts) - sum(each.net_cents for each in missing)
        return payout.amount_cents, known, [f"{payout.id}: {_unbooked(each)}" for each in missing]

    async def _own(self, movements: list[BalanceMovement]) -> tuple[Check, Check]:
        """What Stripe took for itself; and what we have no word for, such as money that was moved by hand."""
        fees = {each.id: -each.net_cents for each in movements if each.category in OF_OWN_FEES}
        booked = await self._books.own_fees(fees)
        pairs = {name: (cents, booked.get(name, 0)) for name, cents in fees.items()}
        others = [each for each in movements if each.category not in OF_OWN_FEES | OF_PAYOUTS]
        return (
            amounts("Stripe's own fees", pairs, ppm_max=self._ppm_max),
            none_of("other movements at Stripe", "movements", map(_unbooked, others)),
        )


def _unbooked(movement: BalanceMovement) -> str:
    return f"{movement.id}, {movement.category} of {in_words(movement.net_cents, 'cents')}, is not in the books"
