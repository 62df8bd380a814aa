"""Handles Stripe's stored events: each makes us look again at its object; none is taken at its word.

An event whose handling fails is tried again, later and later, and is given up as dead with its reason when no retry can
mend it. While Stripe is away nothing is given up.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.postgres.payment_causes import PaymentCauses
from gateway.adapters.postgres.payouts import Payouts
from gateway.adapters.postgres.purchases import Purchases
from gateway.adapters.postgres.stripe_inbox import Due, StripeInbox
from gateway.adapters.stripe.client import Stripe, StripeRefused, StripeUnavailable
from gateway.adapters.stripe.objects import Cause
from gateway.core.accounting.stripe_events import Subject, subject_of
from gateway.core.accounting.topups import Mismatch
from gateway.core.backoff import backoff_s
from gateway.workers.payments import UNBOOKABLE, Payments

log = structlog.get_logger(__name__)

LEASE_S = 120.0  # a claimed event is due again after this; longer than all calls about it together may take
BACKOFF_S_FIRST, BACKOFF_S_MAX = 1, 300
NOT_OURS = "none of our purchases"


class StripeEvents:
    def __init__(
        self,
        inbox: StripeInbox,
        stripe: Stripe,
        purchases: Purchases,
        payments: Payments,
        causes: PaymentCauses,
        payouts: Payouts,
        *,
        at_once_max: int,
        attempts_max: int,
    ) -> None:
        self._inbox = inbox
        self._stripe = stripe
        self._purchases = purchases
        self._payments = payments
        self._causes = causes
        self._payouts = payouts
        self._at_once_max = at_once_max
        self._attempts_max = attempts_max
        self.processed_total = 0
        self.retried_total = 0
        self._handlers: dict[Subject, Callable[[Due], Awaitable[str]]] = {
            Subject.SESSION: self._session,
            Subject.PAYMENT: self._payment,
            Subject.WARNING: self._warning,
            Subject.REVIEW: self._review,
            Subject.PAYOUT: self._payout,
            Subject.CUSTOMER: self._customer,
            Subject.NONE: self._nothing,
        }

    async def step(self) -> int:
        """Handle what is due, several events at a time; returns how many."""
        due = await self._inbox.claim(self._at_once_max, LEASE_S)
        await asyncio.gather(*(self._handle(event) for event in due))
        return len(due)

    async def _handle(self, event: Due) -> None:
        """Handle one event. If it cannot be written down how that went, it is due again after its lease."""
        try:
            await self._try(event)
        except LedgerUnavailable as error:
            log.warning("Stripe event waits for PostgreSQL", event_id=event.id, error=str(error))

    async def _try(self, event: Due) -> None:
        try:
            reason = await self._about(event)
        except (StripeUnavailable, LedgerUnavailable) as error:
            await self._later(event, str(error), self._inbox.wait, event.waits + 1)
        except StripeRefused as error:  # what an event names may take a moment to be readable
            await self._later_or_never(event, str(error))
        except Mismatch as error:
            await self._never(event, str(error))
        except UNBOOKABLE as error:
            await self._later_or_never(event, f"{type(error).__name__}: {error}")
        else:
            await self._inbox.processed(event.id, reason)
            self.processed_total += 1

    async def _about(self, event: Due) -> str:
        if event.is_live != self._stripe.is_live:
            return "of the other mode, live or test"
        return await self._handlers[subject_of(event.type)](event)

    async def _later_or_never(self, event: Due, reason: str) -> None:
        if event.attempts >= self._attempts_max:
            await self._never(event, reason)
        else:
            await self._later(event, reason, self._inbox.retry, event.attempts)

    async def _later(
        self, event: Due, reason: str, postpone: Callable[[str, str, float], Awaitable[None]], times: int
    ) -> None:
        after_s = backoff_s(times, first_s=BACKOFF_S_FIRST, longest_s=BACKOFF_S_MAX)
        log.warning("Stripe event is tried again", event_id=event.id, after_s=after_s, reason=reason)
        self.retried_total += 1
        await postpone(event.id, reason[:500], after_s)

    async def _never(self, event: Due, reason: str) -> None:
        log.error("Stripe event is given up", event_id=event.id, event_type=event.type, reason=reason)
        await self._inbox.dead(event.id, reason[:500])

    async def _session(self, event: Due) -> str:
        return "" if await self._payments.look_at_session(event.object_id) else NOT_OURS

    async def _payment(self, event: Due) -> str:
        return "" if event.payment_id and await self._payments.look(event.payment_id) else NOT_OURS

    async def _warning(self, event: Due) -> str:
        return await self._look_at_account(await self._stripe.warning(event.object_id))

    async def _review(self, event: Due) -> str:
        return await self._look_at_account(await self._stripe.review(event.object_id))

    async def _look_at_account(self, cause: Cause) -> str:
        bought = await self._payments.look(cause.intent_id) if cause.intent_id else None
        if bought is None:
            return NOT_OURS
        of_all = msgspec.structs.replace(cause, cents=bought.order.amount_cents)
        await self._causes.follow(bought.account_id, of_all, reviews=True)
        return ""

    async def _payout(self, event: Due) -> str:
        await self._payouts.post(await self._stripe.payout(event.object_id))
        return ""

    async def _customer(self, event: Due) -> str:
        if not event.object_id.startswith("cus_"):
            return "names no customer"
        reading = await self._purchases.begin_reading()
        await self._purchases.customer_changed(await self._stripe.customer(event.object_id), reading)
        return ""

    async def _nothing(self, event: Due) -> str:
        return "ignored"
