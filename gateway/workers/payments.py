"""From a PaymentIntent to the ledger: what Stripe shows now is read, and what the books lack of it is posted.

Whoever hears of a payment, by an event, a backfill or a refund of ours, has it looked at here; nothing else posts one.
"""

import asyncpg
import structlog

from gateway.adapters.postgres.notices import Notices
from gateway.adapters.postgres.payment_causes import PaymentCauses
from gateway.adapters.postgres.purchases import NewRefund, Purchase, Purchases, RefusedRefund
from gateway.adapters.stripe.client import Stripe, StripeUnavailable
from gateway.adapters.stripe.objects import Cause, Session
from gateway.core.accounting.topups import Mismatch, Payment, PurchaseState, state_of
from gateway.core.guard.notices import Kind
from gateway.core.money import format_dollars

log = structlog.get_logger(__name__)

# An object of Stripe's that is not as we know it, or that the books do not take: its own trouble, and nobody else's.
UNBOOKABLE = (asyncpg.PostgresError, ValueError, LookupError, AttributeError, TypeError)
READS_MAX = 5  # of one payment, while others post to its purchase


class Payments:
    """`reviews_disputes`: whether an account is out of service while a payment of its is disputed."""

    def __init__(
        self,
        stripe: Stripe,
        purchases: Purchases,
        notices: Notices,
        causes: PaymentCauses,
        *,
        reviews_disputes: bool,
    ) -> None:
        self._stripe = stripe
        self._purchases = purchases
        self._notices = notices
        self._causes = causes
        self._reviews_disputes = reviews_disputes

    async def look(self, intent_id: str, decided: NewRefund | RefusedRefund | None = None) -> Purchase | None:
        """Bring the books up to date with a payment; returns its purchase, or None if it is none of ours.

        What was `decided` of a refund is posted with it. Raises `Mismatch` when what was paid is not what was sold,
        `RefundTooLarge`, and whatever stands in the way.
        """
        bought = await self._purchases.of_payment(intent_id)
        for _ in range(READS_MAX):
            reading = await self._purchases.begin_reading()
            payment = await self._stripe.payment(intent_id)
            bought = bought or await self._purchases.find(payment.purchase_id)
            if bought is None:
                return None
            if await self._post(bought, payment, reading, decided):
                await self._follow_disputes(bought, payment)
                return await self._purchases.find(bought.id)
            bought = await self._purchases.find(bought.id)
        raise StripeUnavailable(f"payment {intent_id} keeps changing")

    async def _follow_disputes(self, bought: Purchase, payment: Payment) -> None:
        for each in payment.disputes:
            cause = Cause(each.id, payment.intent_id, each.is_open, "dispute", each.reason, each.cents)
            await self._causes.follow(bought.account_id, cause, reviews=self._reviews_disputes)

    async def look_at_session(self, session_id: str) -> Purchase | None:
        """The same, from the Checkout Session; of an unpaid one its state is noted."""
        reading = await self._purchases.begin_reading()
        session = await self._stripe.session(session_id)
        bought = await self._purchases.find(session.purchase_id)
        if bought is None:
            return None
        if session.intent_id:
            return await self.look(session.intent_id)
        await self._note(bought, session, "", reading)
        return bought

    async def _post(
        self, bought: Purchase, payment: Payment, reading: int, decided: NewRefund | RefusedRefund | None
    ) -> bool:
        session = None
        if bought.session_id and (payment.status != "succeeded" or _is_taxed(bought, payment)):
            session = await self._stripe.session(bought.session_id)
        if payment.status != "succeeded":
            if session is not None:
                await self._note(bought, session, payment.status, reading)
            return True
        try:
            tax_cents = session.tax_cents if session is not None else 0
            return await self._purchases.post(bought, payment, reading, tax_cents, decided)
        except Mismatch:
            await self._purchases.set_state(bought.id, PurchaseState.MISMATCHED, reading)
            log.error("a payment is not what was sold", purchase_id=bought.id, payment=payment.intent_id)
            raise

    async def _note(self, bought: Purchase, session: Session, intent_status: str, reading: int) -> None:
        state = state_of(session=session.status, paid=session.payment_status, intent=intent_status)
        if state is PurchaseState.PAID:
            return
        if (
            state is PurchaseState.FAILED and bought.state is not PurchaseState.FAILED
        ):  # before it is, or it may be lost
            told = {"amount": format_dollars(bought.order.amount_cents), "reason": "the bank refused it"}
            await self._notices.tell(Kind.PAYMENT_FAILED, bought.account_id, told, subject=bought.id)
        await self._purchases.set_state(bought.id, state, reading)


def _is_taxed(bought: Purchase, payment: Payment) -> bool:
    return payment.received_cents != bought.order.amount_cents
