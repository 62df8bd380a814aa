"""A day at Stripe beside the same payments in our books: what came in, what it cost, what went back, what was paid out.

A payment's sums are compared as they stand now, so a day's edges cannot cut them apart. Nothing is written.
"""

from datetime import date, timedelta

from gateway.adapters.postgres.provider_costs import day_start
from gateway.adapters.postgres.reconciliation import BookedPayment, ReconciliationReads
from gateway.adapters.stripe.client import Stripe, StripeRefused, StripeUnavailable
from gateway.adapters.stripe.objects import BalanceMovement
from gateway.core.payouts import RETURNED, Payout
from gateway.core.reconciliation import Check, DayCosts, PaymentSums, amounts, not_checked, payment_checks
from gateway.core.topups import Freeze, Mismatch, facts_of


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

    async def _checks(self, day: date) -> tuple[Check, ...]:
        start, end = day_start(day), day_start(day + timedelta(days=1))
        charges: dict[str, BalanceMovement] = {}
        moved_again: set[str] = set()  # by a refund, a dispute …
        of_day: set[str] = set()
        payouts: list[BalanceMovement] = []
        async for movement in self._stripe.balance_movements(
            int((start - self._late).timestamp()), int(end.timestamp())
        ):
            if movement.category == "charge":
                charges[movement.payment_id] = movement
            else:
                moved_again.add(movement.payment_id)
            if movement.created_s >= start.timestamp():
                of_day.add(movement.payment_id)
                if movement.category == "payout":
                    payouts.append(movement)
        topped_up = await self._books.topped_up(day)
        asked = (of_day | topped_up) - {""}
        booked = await self._books.payments(asked)
        at_stripe = {
            intent: await self._sums(intent, charges.get(intent), booked.get(intent), moved_again=intent in moved_again)
            for intent in sorted(asked)
            if intent in of_day or intent in charges
        }
        in_books = {intent: each.sums for intent, each in booked.items()}
        checks = payment_checks(at_stripe, in_books, ppm_max=self._ppm_max)
        return (*checks, *await self._payouts(payouts))

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

    async def _payouts(self, movements: list[BalanceMovement]) -> tuple[Check, Check]:
        """A payout is booked, and made of balance transactions that are Stripe's own or of payments that we have."""
        payouts = [await self._stripe.payout(each.source_id) for each in movements]
        booked = await self._books.payouts(each.id for each in payouts)
        due = {each.id: (0 if each.status in RETURNED else each.amount_cents) for each in payouts}
        pairs = {name: (cents, booked.get(name, 0)) for name, cents in due.items()}
        made = {each.id: await self._made_of(each) for each in payouts if each.is_automatic}
        return (
            amounts("payouts in the books", pairs, ppm_max=self._ppm_max),
            amounts("payouts made of booked payments", made, ppm_max=self._ppm_max),
        )

    async def _made_of(self, payout: Payout) -> tuple[int, int]:
        """The cents of an automatic payout; and those of its parts that Stripe or the books account for."""
        parts = [each async for each in self._stripe.movements_of_payout(payout.id) if each.source_id != payout.id]
        ours = await self._books.payments({each.payment_id for each in parts} - {""})
        known = sum(each.net_cents for each in parts if not each.payment_id or each.payment_id in ours)
        return payout.amount_cents, known
