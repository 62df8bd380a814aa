"""Begins a purchase: our row first, then a page at Stripe to pay on. Asked again under the same key, it goes on from
where it stopped, so that no answer that was lost makes a second purchase, customer or page.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.adapters.postgres.purchases import NewPurchase, Purchase, Purchases
from gateway.adapters.stripe.client import CheckoutSettings, Sale, Stripe, StripeRefused
from gateway.adapters.stripe.objects import Session
from gateway.core.pricing.packages import Package, Packages

CUSTOMER_UNKNOWN = "resource_missing"

T = TypeVar("T")


class Checkout:
    """`name_of` tells an account's name, for Stripe's customer."""

    def __init__(
        self,
        purchases: Purchases,
        stripe: Stripe,
        packages: Packages,
        settings: CheckoutSettings,
        name_of: Callable[[str], Awaitable[str]],
        *,
        per_hour_max: int,
    ) -> None:
        self._purchases = purchases
        self._stripe = stripe
        self._packages = packages
        self._settings = settings
        self._name_of = name_of
        self._per_hour_max = per_hour_max

    async def begin(self, account_id: str, package: Package, key: str, *, saves_card: bool) -> Purchase:
        """Return the purchase with its page. Raises what `Purchases.begin` and Stripe do."""
        asked = f"{package.name} {package.amount_cents} {saves_card}"
        order = self._packages.order(package, is_live=self._stripe.is_live)
        new = NewPurchase(
            account_id, key, hashlib.sha256(asked.encode()).digest(), package.name, order, saves_card=saves_card
        )
        bought = await self._purchases.begin(new, per_hour_max=self._per_hour_max)
        if bought.session_id:
            return bought
        session = await self._open(bought, package.title)
        await self._purchases.opened(bought.id, session.id, session.url)
        return await self._purchases.find(bought.id) or bought

    async def _open(self, bought: Purchase, title: str) -> Session:
        order = bought.order

        async def session(customer: str) -> Session:
            sale = Sale(
                bought.id, bought.account_id, customer, title, order.amount_cents, order.currency, bought.saves_card
            )
            return await self._stripe.create_session(sale, self._settings, f"purchase-{bought.id}-{customer}")

        return await self._for_customer(bought.account_id, session)

    async def _for_customer(self, account_id: str, make: Callable[[str], Awaitable[T]]) -> T:
        """What is made for the account's customer at Stripe, who is made anew if Stripe has them no more."""
        customer = await self._customer(account_id)
        try:
            return await make(customer)
        except StripeRefused as error:
            if error.code != CUSTOMER_UNKNOWN:
                raise
            # Somebody deleted the customer at Stripe, or it is another Stripe than last time.
            return await make(await self._new_customer(account_id, after=customer))

    async def _customer(self, account_id: str) -> str:
        return await self._purchases.customer(account_id) or await self._new_customer(account_id, after="")

    async def _new_customer(self, account_id: str, *, after: str) -> str:
        """Two that ask at once get the same customer, by the idempotency key."""
        name = await self._name_of(account_id)
        made = await self._stripe.create_customer(account_id, name, f"customer-{account_id}-{after}")
        await self._purchases.keep_customer(account_id, made)
        return made

    async def portal_url(self, account_id: str) -> str:
        """Where the account's customer sees invoices and changes cards."""
        return await self._for_customer(
            account_id, lambda customer: self._stripe.portal_url(customer, self._settings.return_url)
        )
