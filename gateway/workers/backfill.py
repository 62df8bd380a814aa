"""Catches up with Stripe: events that it could not deliver, and payments of which no event ever came."""

from collections.abc import Callable

import msgspec
import structlog

from gateway.adapters.postgres.stripe_inbox import StripeInbox
from gateway.adapters.stripe.client import Stripe, StripeRefused, StripeUnavailable
from gateway.core.stripe_events import HANDLED
from gateway.core.topups import Mismatch
from gateway.workers.payments import Payments

log = structlog.get_logger(__name__)

LATE_S = 600  # an event that is younger may still be on its way


class CaughtUp(msgspec.Struct, frozen=True):
    events: int  # that we did not have
    payments: int  # that were looked at


class Backfill:
    def __init__(
        self, inbox: StripeInbox, stripe: Stripe, payments: Payments, *, now_s: Callable[[], float], interval_s: int
    ) -> None:
        self._inbox = inbox
        self._stripe = stripe
        self._payments = payments
        self._now_s = now_s
        self._interval_s = interval_s

    async def run(self, since_s: int) -> CaughtUp:
        """Store the undelivered events since then, to be handled as all are, and look at every payment since then."""
        events = 0
        async for event in self._stripe.events(since_s, undelivered=True, types=HANDLED):
            events += await self._inbox.keep(event, {}, "backfill")
        payments = 0
        for intent_id in sorted(await self._stripe.touched(since_s)):
            try:
                payments += await self._payments.look(intent_id) is not None
            except Mismatch as error:
                log.error("a payment is not what was sold", payment=intent_id, reason=str(error))
        return CaughtUp(events, payments)

    async def step(self) -> int:
        """What came since the step before last, so that nothing falls between two."""
        try:
            done = await self.run(int(self._now_s()) - 2 * self._interval_s - LATE_S)
        except (StripeUnavailable, StripeRefused) as error:
            log.warning("Stripe's events cannot be listed", error=str(error))
            return 0
        if done.events:
            log.warning("events had not been delivered", events=done.events)
        return 0
