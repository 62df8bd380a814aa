"""Refunds of unused credit, by policy: the credits are taken first, from admission too, then Stripe is asked, once.

No money goes out for what was spent before admission knew. A refund whose answer was lost is asked for again under its
own idempotency key, so it is never made twice.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import NoReturn

import structlog

from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.purchases import (
    AccountMoved,
    AskedRefund,
    NewRefund,
    Purchase,
    Purchases,
    RefusedRefund,
    Unused,
)
from gateway.adapters.redis.link import RedisScriptError
from gateway.adapters.stripe.client import Stripe, StripeRefused, StripeUnavailable
from gateway.core.accounting.topups import Mismatch, PurchaseState, cents_for
from gateway.core.money import MicroCredits, format_dollars
from gateway.loops import OUTAGES
from gateway.workers.payments import UNBOOKABLE, Payments

log = structlog.get_logger(__name__)

# Who makes a refund has asked Stripe by then, with all retries of the call; after it, the worker takes over.
WAITING_S = 60.0
READS_MAX = 5  # of what is unused, while the account's credit moves


class RefundRefused(Exception):
    """This refund is not made; the message says why."""


class Refunds:
    """`unused` tells what an account has unused."""

    def __init__(
        self,
        purchases: Purchases,
        stripe: Stripe,
        payments: Payments,
        *,
        days_max: int,
        unused: Callable[[str], Awaitable[Unused]],
        new_id: Callable[[], str],
        now: Callable[[], datetime],
    ) -> None:
        self._purchases = purchases
        self._stripe = stripe
        self._payments = payments
        self._days_max = days_max
        self._unused = unused
        self._new_id = new_id
        self._now = now

    async def create(
        self, purchase_id: str, credits: MicroCredits | None, *, key: str, signature: Signature
    ) -> AskedRefund:
        """Refund these paid credits of a purchase, or all that are unused. The same key is the same refund, which
        is signed once.

        Raises `RefundRefused` and `RefundTooLarge`. A refund that is still "requested" is under way. While nobody can
        say what is unused, nothing is refunded: raises what `unused` does, or `AccountMoved`.
        """
        bought = await self._purchases.find(purchase_id)
        if bought is None:
            raise RefundRefused(f"there is no purchase {purchase_id!r}")
        asked = await self._purchases.refund_by_key(bought.id, key)
        if asked is None:
            await self._promise(bought, credits, key, signature)
            asked = await self._purchases.refund_by_key(bought.id, key)
            assert asked is not None, "a refund has vanished"
        if credits is not None and asked.cents != self._cents(bought, credits):
            raise RefundRefused(f"this key stands for a refund of {format_dollars(asked.cents)} already")
        if asked.state == "requested":
            try:
                await self._find_or_make(asked)
            except (*OUTAGES, StripeUnavailable) as error:  # the credits are taken; `step` does the rest
                log.warning("a refund waits", refund_id=asked.id, error=str(error))
        return await self._purchases.refund_by_key(bought.id, key) or asked

    async def _promise(self, bought: Purchase, credits: MicroCredits | None, key: str, signature: Signature) -> None:
        if bought.state is not PurchaseState.PAID or bought.paid_at is None:
            raise RefundRefused(f"the purchase is {bought.state.value}, not paid")
        if self._now() - bought.paid_at > timedelta(days=self._days_max):
            raise RefundRefused(f"it was paid more than {self._days_max} days ago")
        if bought.posted.withdrawn:
            raise RefundRefused("it is disputed: the bank decides who has the money")
        cents = None if credits is None else self._cents(bought, credits)
        for attempt in range(READS_MAX):
            unused = await self._unused(bought.account_id)
            promise = NewRefund(self._new_id(), key, cents, unused, signature)
            try:
                await self._payments.look(bought.payment_intent_id, promise)
            except AccountMoved:
                if attempt == READS_MAX - 1:
                    raise
            else:
                return

    def _cents(self, bought: Purchase, credits: MicroCredits) -> int:
        try:
            return cents_for(bought.order, bought.posted, credits)
        except ValueError as error:
            raise RefundRefused(str(error)) from error

    async def step(self) -> int:
        """Find out what became of refunds whose answer was lost."""
        for asked in await self._purchases.refunds_waiting(WAITING_S, is_live=self._stripe.is_live):
            try:
                await self._find_or_make(asked)
            except (*OUTAGES, RefundRefused, StripeUnavailable) as error:
                log.warning("a refund is not made", refund_id=asked.id, error=str(error))
            except (Mismatch, RedisScriptError, StripeRefused, *UNBOOKABLE) as error:  # nobody else's waits behind it
                log.error("a refund cannot be made", refund_id=asked.id, error=repr(error))
                await self._purchases.postpone_refund(asked)
        return 0

    async def _find_or_make(self, asked: AskedRefund) -> None:
        """Stripe forgets idempotency keys after a day, but not refunds. `asked` was read before Stripe is."""
        payment = await self._stripe.payment(asked.payment_intent_id)
        if any(each.ours == asked.id for each in payment.refunds):
            await self._payments.look(asked.payment_intent_id)
        elif await self._purchases.claim_refund(asked, WAITING_S):
            await self._make(asked)

    async def _make(self, asked: AskedRefund) -> None:
        bought = await self._purchases.find(asked.purchase_id)
        assert bought is not None, "a purchase has vanished"
        if (await self._unused(bought.account_id)).credits < 0:
            await self._give_back(asked, "its credit was used meanwhile")
        try:
            await self._stripe.create_refund(asked.payment_intent_id, asked.cents, asked.id)
        except StripeRefused as error:
            await self._give_back(asked, f"Stripe refused: {error}")
        await self._payments.look(asked.payment_intent_id)

    async def _give_back(self, asked: AskedRefund, why: str) -> NoReturn:
        await self._payments.look(asked.payment_intent_id, RefusedRefund(asked.id, why))
        raise RefundRefused(why)
