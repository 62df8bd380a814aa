"""Charges saved cards of accounts whose balance fell below their threshold: once for each fall, whatever is lost.

An attempt is in Postgres before Stripe is asked, and there can be one at a time. It is decided on again whenever Stripe
is about to be asked, so that nothing that was paid meanwhile is paid twice, and nothing is charged that is not agreed
to any more. One whose outcome is unknown is looked up at Stripe, and asked for again only where Stripe has none, under
the same key.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from gateway.adapters.postgres.purchases import KeyReused, TooManyBegun, TooMuchHeld
from gateway.adapters.postgres.recharges import Attempt, Recharges, Watched
from gateway.adapters.redis.link import RedisScriptError
from gateway.adapters.stripe.client import Sale, Stripe, StripeRefused, StripeUnavailable
from gateway.adapters.stripe.objects import Charged
from gateway.core.accounting.recharge import Pause, Reason, Situation, obstacle
from gateway.core.accounting.topups import Mismatch
from gateway.core.money import MicroCredits
from gateway.core.pricing.packages import Packages, custom
from gateway.loops import OUTAGES
from gateway.workers.checkout import CUSTOMER_UNKNOWN, Checkout
from gateway.workers.payments import UNBOOKABLE, Payments

log = structlog.get_logger(__name__)

# Who began an attempt has the answer by then: longer than all retries of one call.
UNSURE_S = 60.0
# Stripe forgets idempotency keys after 24 hours. An attempt that it does not know by then was never made.
ASKED_AGAIN_S_MAX = 20 * 3600.0
# Where the month's maximum is reached, nothing changes before the month does, or the terms.
MONTH_MAX_WAIT = timedelta(minutes=10)


class Recharger:
    """`available` tells what admission lets an account spend, `sells_to` whether it may buy; `now_s` is Unix time."""

    def __init__(
        self,
        recharges: Recharges,
        stripe: Stripe,
        payments: Payments,
        checkout: Checkout,
        packages: Packages,
        *,
        available: Callable[[str], Awaitable[MicroCredits]],
        sells_to: Callable[[str], Awaitable[bool]],
        charges_max: int,
        now_s: Callable[[], float],
    ) -> None:
        self._recharges = recharges
        self._stripe = stripe
        self._payments = payments
        self._checkout = checkout
        self._packages = packages
        self._available = available
        self._sells_to = sells_to
        self._charges_max = charges_max
        self._now_s = now_s
        self._charging: dict[str, asyncio.Task[None]] = {}  # by account
        self._last_begun = ""  # account ids from here on have their turn next
        self._unreadable = set[str]()  # accounts of which it was said
        self._bug: BaseException | None = None
        self.charged_total = 0
        self.declined_total = 0

    async def step(self) -> int:
        """Begin what is needed now; a charge goes on beside, so that a slow one holds up nobody else's."""
        if self._bug is not None:
            raise self._bug
        await self._recharges.close_paid()
        for attempt in await self._recharges.unsure(UNSURE_S):
            if attempt.account_id not in self._charging:
                self._start(attempt.account_id, self._find_out(attempt))
        for attempt in await self._recharges.unoffered(UNSURE_S):
            if attempt.account_id not in self._charging:
                self._start(attempt.account_id, self._offer_page(attempt))
        watched = [each for each in await self._recharges.watched() if each.account_id not in self._charging]
        are_low = await asyncio.gather(*map(self._is_low, watched))
        low = [each for each, is_low in zip(watched, are_low, strict=True) if is_low]
        low.sort(key=lambda each: (each.account_id <= self._last_begun, each.account_id))
        for each in low[: max(0, self._charges_max - len(self._charging))]:
            self._last_begun = each.account_id
            self._start(each.account_id, self._recharge(each))
        return 0

    async def _is_low(self, watched: Watched) -> bool:
        try:
            is_low = await self._available(watched.account_id) < watched.terms.threshold
        except (RedisScriptError, ValueError, TypeError) as error:  # this account's trouble, and nobody else's
            if watched.account_id not in self._unreadable:
                log.error("a recharge waits: no balance", account_id=watched.account_id, error=repr(error))
            self._unreadable.add(watched.account_id)
            return False
        self._unreadable.discard(watched.account_id)
        return is_low

    async def idle(self) -> None:
        """Wait until every charge that was begun has ended, or is left for later."""
        while self._charging:
            await asyncio.wait(self._charging.values())

    async def close(self) -> None:
        """Stop. What is under way is found out by whoever works next."""
        for task in self._charging.values():
            task.cancel()
        await self.idle()

    def _start(self, account_id: str, charging: Awaitable[None]) -> None:
        task = asyncio.ensure_future(self._guarded(account_id, charging))
        self._charging[account_id] = task
        task.add_done_callback(lambda ended: self._ended(account_id, ended))

    def _ended(self, account_id: str, task: asyncio.Task[None]) -> None:
        del self._charging[account_id]
        if not task.cancelled():
            self._bug = task.exception() or self._bug

    async def _guarded(self, account_id: str, charging: Awaitable[None]) -> None:
        try:
            await charging
        except (*OUTAGES, StripeUnavailable, StripeRefused) as error:
            log.warning("a recharge waits", account_id=account_id, error=str(error))
        except Mismatch as error:
            log.error("a recharge is not what was asked for", account_id=account_id, error=str(error))
        except (RedisScriptError, *UNBOOKABLE) as error:  # this account's trouble, and nobody else's
            log.error("a recharge cannot be made", account_id=account_id, error=repr(error))

    # --- one account -------------------------------------------------------------------------------------------------

    async def _recharge(self, watched: Watched) -> None:
        in_the_way = await self._obstacle(watched)
        if in_the_way is Reason.MONTH_MAX:
            await self._recharges.wait(watched.account_id, MONTH_MAX_WAIT)
        if in_the_way is not None:
            return
        attempt = await self._recharges.begin(watched, self._packages.currency, is_live=self._stripe.is_live)
        if attempt is not None:
            # From here on nobody else can begin one, so what was paid by an earlier one is seen now.
            await self._charge_if_needed(attempt)

    async def _charge_if_needed(self, attempt: Attempt) -> None:
        agreed = await self._recharges.agreed(attempt)
        in_the_way = Reason.NOT_AGREED if agreed is None else await self._obstacle(agreed, attempt)
        if in_the_way is None:
            await self._charge(attempt)
        else:
            await self._recharges.drop(attempt, in_the_way.value)

    async def _obstacle(self, watched: Watched, attempt: Attempt | None = None) -> Reason | None:
        account_id = watched.account_id
        if not await self._sells_to(account_id):
            return Reason.CLOSED
        coming = await self._recharges.coming(account_id)  # before the balance: what arrives between is seen twice
        available = await self._available(account_id)
        month_cents = (
            await self._recharges.month_cents(account_id)
            if attempt is None
            else await self._recharges.month_cents(account_id, without=attempt.purchase_id)
        )
        return obstacle(watched.terms, Situation(available, coming, month_cents))

    async def _charge(self, attempt: Attempt) -> None:
        credits = attempt.amount_cents * 10
        sale = Sale(
            attempt.purchase_id,
            attempt.account_id,
            attempt.customer_id,
            f"{credits:,} credits, automatic recharge",
            attempt.amount_cents,
            attempt.currency,
            False,
        )
        try:
            charged = await self._stripe.charge_card(sale, attempt.card_id)
        except StripeRefused as error:
            charged = Charged("", "declined", error.code or "refused")
        await self._follow(attempt, charged)

    async def _find_out(self, attempt: Attempt) -> None:
        began_s = int(attempt.created_at.timestamp())
        charged = await self._charged(attempt, began_s - 60)
        if charged is not None:
            await self._follow(attempt, charged)
        elif self._now_s() - began_s < ASKED_AGAIN_S_MAX:
            await self._charge_if_needed(attempt)
        else:
            await self._recharges.drop(attempt, "Stripe never heard of it")

    async def _charged(self, attempt: Attempt, since_s: int) -> Charged | None:
        try:
            return await self._stripe.charged(attempt.customer_id, attempt.purchase_id, since_s)
        except StripeRefused as error:
            if error.code != CUSTOMER_UNKNOWN:
                raise
            return None  # it is another Stripe than then: we have gone live

    async def _follow(self, attempt: Attempt, charged: Charged) -> None:
        if charged.status == "succeeded":
            await self._payments.look(charged.intent_id)
            await self._recharges.close_paid()
            self.charged_total += 1
        elif charged.status == "declined":
            self.declined_total += 1
            pause = await self._recharges.declined(attempt, charged.code)
            log.warning("a recharge was declined", account_id=attempt.account_id, code=charged.code, paused=pause)
            if pause is Pause.AUTHENTICATION_REQUIRED:
                await self._offer_page(attempt)

    async def _offer_page(self, attempt: Attempt) -> None:
        """Only the customer can pay: a page for the same amount, on which the card is saved anew, once they may buy."""
        if not await self._sells_to(attempt.account_id):
            return  # `unoffered` has it again
        key = f"recharge-page-{attempt.purchase_id}"
        try:
            page = await self._checkout.begin(attempt.account_id, custom(attempt.amount_cents), key, saves_card=True)
        except (TooManyBegun, TooMuchHeld, KeyReused) as error:
            log.warning("a paused recharge has no page", account_id=attempt.account_id, error=repr(error))
            return
        log.info("a paused recharge waits for its customer", account_id=attempt.account_id, url=page.checkout_url)
        await self._recharges.offer(attempt.account_id, page.id, page.checkout_url)
