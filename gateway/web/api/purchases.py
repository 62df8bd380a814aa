"""`/api/purchases`: what an account buys, over HTTP. Amounts asked for are cents; amounts told say their unit."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from aiohttp import web

from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.postgres.purchases import KeyReused, Purchase, Purchases, TooManyBegun, TooMuchHeld
from gateway.adapters.stripe.client import StripeRefused, StripeUnavailable
from gateway.core.access.callers import Caller
from gateway.core.accounting.topups import UCR_PER_CENT, PurchaseState
from gateway.core.errors import BillingUnavailable, GatewayError, IdempotencyMismatch, InvalidRequest
from gateway.core.guard.address_limit import HOUR_S, AddressLimit
from gateway.core.guard.policy import Controls
from gateway.core.money import AMOUNT_UCR_MAX, format_credits
from gateway.core.pricing.packages import Package, Packages
from gateway.web.access import Access
from gateway.web.idempotency import KEY_LENGTH_MAX
from gateway.web.operations import read_body
from gateway.workers.checkout import Checkout

log = structlog.get_logger(__name__)

LISTED_MAX = 100


class PaymentsUnavailable(GatewayError):
    """The payment provider cannot be reached; try again with the same Idempotency-Key."""

    status, code, retryable = 503, "payments_unavailable", True


class PaymentsRefused(GatewayError):
    """The payment provider refused the purchase; its operator has been told."""

    status, code = 502, "payments_refused"


class TooManyPurchases(GatewayError):
    """This account began too many purchases within an hour."""

    status, code, type, retryable = 429, "purchase_limit", "rate_limit_error", True


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A package by its name, or an amount in cents."""

    package: str = ""
    amount_cents: int = 0
    save_card: bool = False


Handler = Callable[[web.Request], Awaitable[web.Response]]


class PurchaseRoutes:
    def __init__(
        self,
        access: Access,
        purchases: Purchases,
        checkout: Checkout,
        packages: Packages,
        *,
        per_address_hour_max: int,
        addresses_max: int,
        controls: Callable[[], Controls],
        now_ms: Callable[[], int],
    ) -> None:
        self._access = access
        self._purchases = purchases
        self._checkout = checkout
        self._packages = packages
        self._by_address = AddressLimit(per_address_hour_max, addresses_max, HOUR_S)
        self._controls = controls
        self._now_ms = now_ms

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.post("/api/purchases", told_outages(self.buy)),
            web.get("/api/purchases", told_outages(self.list)),
            web.get("/api/packages", told_outages(self.packages)),
            web.post("/api/purchases/portal", told_outages(self.portal)),
        ]

    async def buy(self, request: web.Request) -> web.Response:
        """Begin a purchase; asked again with the same key, the same one is told."""
        caller = await self._buyer(request)
        flags = self._controls().flags
        if flags is not None:
            flags.check_purchase(caller.account_id, self._now_ms())
        key = request.headers.get("Idempotency-Key", "")
        if not 0 < len(key) <= KEY_LENGTH_MAX or not key.isprintable():
            raise InvalidRequest(
                f"Give an Idempotency-Key header of at most {KEY_LENGTH_MAX} printable characters, another for each"
                " purchase: asked again with the same, the same purchase is told."
            )
        asked = read_body(await request.read(), Asked)
        try:
            bought = await self._checkout.begin(
                caller.account_id, self._package(asked), key, saves_card=asked.save_card
            )
        except KeyReused as error:
            raise IdempotencyMismatch from error
        except TooManyBegun as error:
            raise TooManyPurchases(retry_after_s=3600) from error
        except TooMuchHeld as error:
            most = format_credits(AMOUNT_UCR_MAX)
            raise InvalidRequest(f"An account can hold at most {most} credits: use some first, or buy less.") from error
        return web.json_response(shown(bought), status=201)

    async def list(self, request: web.Request) -> web.Response:
        caller = await self._access.reading(request)
        found = await self._purchases.listing(caller.account_id, LISTED_MAX)
        return web.json_response({"purchases": [shown(each) for each in found]})

    async def packages(self, _: web.Request) -> web.Response:
        """What is for sale; anybody may ask."""
        listed = [
            {
                "name": each.name,
                "title": each.title,
                "amount_cents": each.amount_cents,
                "credits": each.amount_cents * 10,
                "bonus_credits": each.bonus_credits,
            }
            for each in self._packages.package
        ]
        bounds = {
            "amount_cents_min": self._packages.custom_cents_min,
            "amount_cents_max": self._packages.custom_cents_max,
        }
        return web.json_response({"currency": self._packages.currency, "packages": listed, "custom": bounds})

    async def portal(self, request: web.Request) -> web.Response:
        caller = await self._buyer(request)
        return web.json_response({"url": await self._checkout.portal_url(caller.account_id)}, status=201)

    async def _buyer(self, request: web.Request) -> Caller:
        """Whoever may buy, unless too much was begun from where it is: many accounts are made to try stolen cards."""
        caller = await self._access.buying(request)
        address, now_s = self._access.address(request), self._now_ms() / 1000
        wait_s = self._by_address.wait_s(address, now_s)
        if wait_s > 0:
            raise TooManyPurchases("Too many purchases were begun from this address.", retry_after_s=int(wait_s) + 1)
        self._by_address.take(address, now_s)
        return caller

    def _package(self, asked: Asked) -> Package:
        if bool(asked.package) == bool(asked.amount_cents):
            raise InvalidRequest("Give either a package or amount_cents.")
        if asked.package:
            package = self._packages.named(asked.package)
            if package is None:
                names = ", ".join(each.name for each in self._packages.package)
                raise InvalidRequest(f"There is no such package; there are {names}.", param="package")
            return package
        package = self._packages.custom(asked.amount_cents)
        if package is None:
            lowest, highest = self._packages.custom_cents_min, self._packages.custom_cents_max
            raise InvalidRequest(f"An amount is {lowest} to {highest} cents.", param="amount_cents")
        return package


def shown(bought: Purchase) -> dict[str, Any]:
    """A purchase as its account reads it. Credits are decimal strings."""
    order, posted = bought.order, bought.posted
    return {
        "id": bought.id,
        "state": bought.state.value,
        "package": bought.package,
        "amount_cents": order.amount_cents,
        "tax_cents": posted.tax // UCR_PER_CENT,
        "currency": order.currency,
        "credits": format_credits(order.paid),
        "bonus_credits": format_credits(order.bonus),
        "refunded_cents": posted.refunded // UCR_PER_CENT,
        "reversed_credits": format_credits(posted.reversed),
        "save_card": bought.saves_card,  # whether who paid agreed to that, on Stripe's page
        "checkout_url": bought.checkout_url if bought.state in (PurchaseState.CREATED, PurchaseState.OPEN) else None,
        "receipt_url": bought.receipt_url or None,
        "created_at": bought.created_at.isoformat(timespec="seconds"),
        "paid_at": None if bought.paid_at is None else bought.paid_at.isoformat(timespec="seconds"),
    }


def told_outages(handler: Handler) -> Handler:
    """Failures outside as the refusals that they mean to a customer."""

    async def handle(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except LedgerUnavailable as error:
            raise BillingUnavailable(retry_after_s=1) from error
        except StripeUnavailable as error:
            log.warning("Stripe does not answer", error=str(error))
            raise PaymentsUnavailable(retry_after_s=2) from error
        except StripeRefused as error:
            log.error("Stripe refused", error=str(error), code=error.code)
            raise PaymentsRefused from error

    return handle
