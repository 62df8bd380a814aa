"""Catches up with Stripe: events that it could not deliver, payments and payouts of which none came, and its own fees,
which have none.
"""

from collections.abc import Callable

import msgspec
import structlog

from gateway.adapters.postgres.payouts import Payouts
from gateway.adapters.postgres.stripe_inbox import StripeInbox
from gateway.adapters.stripe.client import Stripe, StripeRefused, StripeUnavailable
from gateway.adapters.stripe.objects import BalanceMovement
from gateway.core.accounting.payouts import OF_OWN_FEES, OF_PAYOUTS, OwnFee
from gateway.core.accounting.stripe_events import HANDLED
from gateway.core.accounting.topups import Mismatch
from gateway.workers.payments import UNBOOKABLE, Payments

log = structlog.get_logger(__name__)

LATE_S = 600  # an event that is younger may still be on its way


class CaughtUp(msgspec.Struct, frozen=True):
    events: int  # that we did not have
    payments: int  # that were looked at
    payouts: int  # likewise
    own_fees: int  # of Stripe, that were not booked


class Backfill:
    def __init__(
        self,
        inbox: StripeInbox,
        stripe: Stripe,
        payments: Payments,
        payouts: Payouts,
        *,
        now_s: Callable[[], float],
        interval_s: int,
    ) -> None:
        self._inbox = inbox
        self._stripe = stripe
        self._payments = payments
        self._payouts = payouts
        self._now_s = now_s
        self._interval_s = interval_s
        self._done_s = 0.0  # when the last step began that went well

    async def run(self, since_s: int) -> CaughtUp:
        """Store the undelivered events since then, to be handled as all are; look at what moved money since then."""
        events = 0
        async for event in self._stripe.events(since_s, undelivered=True, types=HANDLED):
            events += await self._inbox.keep(event, {}, "backfill")
        touched = await self._stripe.touched(since_s)
        payments = await self._look(touched)
        until_s = int(self._now_s()) + LATE_S
        movements = [each async for each in self._stripe.balance_movements(since_s, until_s)]
        # A dispute is won and a refund fails long after they were made, and no object of then is new.
        moved_again = {each.payment_id for each in movements if each.category != "charge"} - {""}
        payments += await self._look(moved_again - touched)
        payouts, own_fees = await self._balance(movements)
        return CaughtUp(events, payments, payouts, own_fees)

    async def _look(self, intent_ids: set[str]) -> int:
        payments = 0
        for intent_id in sorted(intent_ids):
            try:
                payments += await self._payments.look(intent_id) is not None
            except (Mismatch, StripeRefused, *UNBOOKABLE) as error:  # one that cannot be booked keeps no other from it
                log.error("a payment cannot be booked", payment=intent_id, reason=str(error))
        return payments

    async def _balance(self, movements: list[BalanceMovement]) -> tuple[int, int]:
        payouts = own_fees = 0
        for each in movements:
            try:
                if each.category in OF_PAYOUTS:
                    await self._payouts.post(await self._stripe.payout(each.source_id))
                    payouts += 1
                elif each.category in OF_OWN_FEES:
                    own_fees += await self._payouts.charge(OwnFee(each.id, -each.net_cents, each.currency))
            except (Mismatch, StripeRefused, *UNBOOKABLE) as error:
                log.error("what moved Stripe's balance is not in the books", movement=each.id, reason=str(error))
        return payouts, own_fees

    async def step(self) -> int:
        """What came since the step before the last that went well, so that nothing falls between two."""
        began_s = self._now_s()
        since_s = min(began_s - self._interval_s, self._done_s or began_s) - self._interval_s - LATE_S
        try:
            done = await self.run(int(since_s))
        except (StripeUnavailable, StripeRefused, *UNBOOKABLE) as error:
            log.warning("Stripe's events cannot be listed", error=repr(error))
            return 0
        self._done_s = began_s
        if done.events:
            log.warning("events had not been delivered", events=done.events)
        return 0
