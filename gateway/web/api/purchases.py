"""`/api/purchases`: what an account buys, over HTTP. Amounts say their unit."""

from collections.abc import Awaitable, Callable
from datetime import datetime

import msgspec
import structlog
from aiohttp import web

from gateway.adapters.postgres.purchases import KeyReused, Purchase, Purchases, TooManyBegun, TooMuchHeld
from gateway.adapters.stripe.client import StripeRefused, StripeUnavailable
from gateway.core.access.callers import Caller
from gateway.core.accounting.topups import UCR_PER_CENT, PurchaseState
from gateway.core.errors import GatewayError, IdempotencyMismatch, InvalidRequest
from gateway.core.guard.address_limit import HOUR_S, AddressLimit
from gateway.core.guard.policy import Controls
from gateway.core.money import AMOUNT_UCR_MAX, format_credits
from gateway.core.pricing.packages import Package, Packages
from gateway.web.access import Access
from gateway.web.idempotency import KEY_LENGTH_MAX
from gateway.web.operations import Answer, Operation, read_body
from gateway.web.pages import PAGING, Page, cursor_of, iso, limit_of, page_of
from gateway.workers.checkout import Checkout

log = structlog.get_logger(__name__)


class PaymentsUnavailable(GatewayError):
    """The payment provider cannot be reached; try again with the same Idempotency-Key."""

    status, code, retryable = 503, "payments_unavailable", True


class PaymentsRefused(GatewayError):
    """The payment provider refused the purchase; its operator has been told."""

    status, code = 502, "payments_refused"


class TooManyPurchases(GatewayError):
    """This account began too many purchases within an hour."""

    status, code, type, retryable = 429, "purchase_limit", "rate_limit_error", True


class Asked(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A package by its name, or an amount in cents."""

    package: str = ""
    amount_cents: int = 0
    save_card: bool = False


class PurchaseShown(msgspec.Struct, frozen=True, rename="camel"):
    """A purchase as its account reads it. Amounts of money are cents; credits are decimals."""

    id: str
    state: PurchaseState
    package: str
    amount_cents: int
    tax_cents: int
    currency: str
    credits: str
    bonus_credits: str
    refunded_cents: int
    reversed_credits: str
    save_card: bool  # whether who paid agreed to that, on Stripe's page
    checkout_url: str | None
    receipt_url: str | None
    created_at: str
    paid_at: str | None


class PackageShown(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    title: str
    amount_cents: int
    credits: int
    bonus_credits: int


class CustomAmount(msgspec.Struct, frozen=True, rename="camel"):
    amount_cents_min: int
    amount_cents_max: int


class PackagesShown(msgspec.Struct, frozen=True, rename="camel"):
    currency: str
    packages: list[PackageShown]
    custom: CustomAmount


class Portal(msgspec.Struct, frozen=True):
    url: str


Handler = Callable[[web.Request], Awaitable[Answer]]


class PurchasesApi:
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

    def operations(self) -> list[Operation]:
        path = "/api/purchases"
        return [
            Operation("GET", "/api/packages", self.packages, "What is for sale.", PackagesShown, is_open=True),
            Operation("GET", path, self.list, "The account's purchases, the newest first.", Page[PurchaseShown],
                      query=PAGING),
            Operation("POST", path, told_failures(self.buy), "Begin a purchase; the answer says where it is paid.",
                      PurchaseShown, 201, takes=Asked, creates=True),
            Operation("POST", path + "/portal", told_failures(self.portal), "A page for cards and invoices.", Portal,
                      201),
        ]  # fmt: skip

    async def buy(self, request: web.Request) -> Answer:
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
        return Answer(shown(bought), 201)

    async def list(self, request: web.Request) -> Answer:
        caller = await self._access.reading(request)
        limit, after = limit_of(request), cursor_of(request, tuple[datetime, str])
        found = await self._purchases.listing(caller.account_id, limit + 1, after)
        return Answer(page_of(found, limit, lambda each: (each.created_at, each.id), shown))

    async def packages(self, _: web.Request) -> Answer:
        """What is for sale; anybody may ask."""
        sold = self._packages
        listed = [
            PackageShown(each.name, each.title, each.amount_cents, each.amount_cents * 10, each.bonus_credits)
            for each in sold.package
        ]
        return Answer(PackagesShown(sold.currency, listed, CustomAmount(sold.custom_cents_min, sold.custom_cents_max)))

    async def portal(self, request: web.Request) -> Answer:
        caller = await self._buyer(request)
        return Answer(Portal(await self._checkout.portal_url(caller.account_id)), 201)

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
            raise InvalidRequest("Give either a package or amountCents.")
        if asked.package:
            package = self._packages.named(asked.package)
            if package is None:
                names = ", ".join(each.name for each in self._packages.package)
                raise InvalidRequest(f"There is no such package; there are {names}.", param="package")
            return package
        package = self._packages.custom(asked.amount_cents)
        if package is None:
            lowest, highest = self._packages.custom_cents_min, self._packages.custom_cents_max
            raise InvalidRequest(f"An amount is {lowest} to {highest} cents.", param="amountCents")
        return package


def shown(bought: Purchase) -> PurchaseShown:
    order, posted = bought.order, bought.posted
    is_payable = bought.state in (PurchaseState.CREATED, PurchaseState.OPEN)
    return PurchaseShown(
        id=bought.id,
        state=bought.state,
        package=bought.package,
        amount_cents=order.amount_cents,
        tax_cents=posted.tax // UCR_PER_CENT,
        currency=order.currency,
        credits=format_credits(order.paid),
        bonus_credits=format_credits(order.bonus),
        refunded_cents=posted.refunded // UCR_PER_CENT,
        reversed_credits=format_credits(posted.reversed),
        save_card=bought.saves_card,
        checkout_url=bought.checkout_url if is_payable else None,
        receipt_url=bought.receipt_url or None,
        created_at=iso(bought.created_at),
        paid_at=None if bought.paid_at is None else iso(bought.paid_at),
    )


def told_failures(handler: Handler) -> Handler:
    """Failures at Stripe as the refusals that they mean to a customer."""

    async def handle(request: web.Request) -> Answer:
        try:
            return await handler(request)
        except StripeUnavailable as error:
            log.warning("Stripe does not answer", error=str(error))
            raise PaymentsUnavailable(retry_after_s=2) from error
        except StripeRefused as error:
            log.error("Stripe refused", error=str(error), code=error.code)
            raise PaymentsRefused from error

    return handle
