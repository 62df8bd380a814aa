"""What deals with Stripe, built out of the configuration: for the gateway its routes, for the workers their steps."""

import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime

import structlog
from aiohttp import web
from prometheus_client.core import Metric

from gateway.adapters.postgres.credit_outbox import CreditOutbox
from gateway.adapters.postgres.payment_causes import PaymentCauses
from gateway.adapters.postgres.payouts import Payouts
from gateway.adapters.postgres.purchases import Purchases
from gateway.adapters.postgres.recharges import Recharges
from gateway.adapters.postgres.stripe_inbox import StripeInbox
from gateway.adapters.stripe.client import CheckoutSettings, Stripe
from gateway.app.sources import new_request_id, now_ms
from gateway.app.stores import Stores
from gateway.config import Config, ConfigError
from gateway.core.guard.flags import in_force
from gateway.core.guard.policy import Controls
from gateway.core.money import MicroCredits
from gateway.core.pricing.packages import Packages, PackagesError, load_packages
from gateway.loops import every
from gateway.resources import shipped
from gateway.web.access import Access
from gateway.web.api.purchases import PurchasesApi
from gateway.web.api.recharge import RechargeApi
from gateway.web.metrics import counters, gauges
from gateway.web.operations import Operation
from gateway.web.stripe_webhook import StripeWebhook
from gateway.workers.backfill import Backfill
from gateway.workers.checkout import Checkout
from gateway.workers.payments import Payments
from gateway.workers.recharger import Recharger
from gateway.workers.refunds import Refunds
from gateway.workers.stripe_events import StripeEvents
from gateway.workers.unused import UnusedCredit

log = structlog.get_logger(__name__)

COUNT_S = 15.0


class StripeParts:
    """Stripe's client and what our side keeps of it. To be closed."""

    def __init__(self, config: Config, stores: Stores) -> None:
        self._config = config
        self._stores = stores
        settings = config.stripe
        self.stripe = Stripe(
            config.stripe_key,
            api_url=settings.api_url,
            timeout_s=settings.timeout_ms / 1000,
            retries_max=settings.retries_max,
        )
        self.purchases = Purchases(
            stores.pool, stores.ledger, stores.audit_log, freeze=settings.freeze, new_id=new_request_id, now_ms=now_ms
        )
        self.inbox = StripeInbox(stores.pool)
        self._unprocessed: dict[str, int] = {}
        self._oldest_event_s = 0.0
        self.causes = PaymentCauses(stores.pool, stores.notices)
        self.payments = Payments(
            self.stripe, self.purchases, stores.notices, self.causes, reviews_disputes=settings.freeze == "account"
        )
        payouts = Payouts(stores.pool, stores.ledger, now_ms=now_ms)
        self.events = StripeEvents(
            self.inbox,
            self.stripe,
            self.purchases,
            self.payments,
            self.causes,
            payouts,
            at_once_max=settings.events_at_once_max,
            attempts_max=settings.event_attempts_max,
        )
        self.unused = UnusedCredit(
            stores.accounts, CreditOutbox(stores.pool), stores.crediter, stores.credits, stores.recovery
        )
        self.refunds = Refunds(
            self.purchases,
            self.stripe,
            self.payments,
            days_max=config.purchases.refund_days_max,
            unused=self.unused.of,
            new_id=new_request_id,
            now=lambda: datetime.now(UTC),
        )
        self.packages = load_catalogue()
        pages = CheckoutSettings(settings.return_url, settings.automatic_tax, settings.tax_ids, settings.invoices)
        self.checkout = Checkout(
            self.purchases, self.stripe, self.packages, pages, self._name_of, per_hour_max=config.purchases.per_hour_max
        )
        self.recharges = Recharges(stores.pool, stores.notices, stores.audit_log, new_id=new_request_id)
        self.recharger = Recharger(
            self.recharges,
            self.stripe,
            self.payments,
            self.checkout,
            self.packages,
            available=self._available,
            sells_to=self._sells_to,
            charges_max=settings.recharges_at_once_max,
            now_s=time.time,
        )
        self.backfill = Backfill(
            self.inbox, self.stripe, self.payments, payouts, now_s=time.time, interval_s=settings.backfill_s
        )

    async def _available(self, account_id: str) -> MicroCredits:
        return (await self._stores.live_balance(account_id)).available

    async def _sells_to(self, account_id: str) -> bool:
        flags = in_force(await self._stores.flags.list(), now_ms())
        return flags is None or flags.sells_to(account_id)

    def loops(self) -> list[Coroutine[None, None, None]]:
        """What the workers do for payments, for ever."""
        settings = self._config.stripe
        return [
            every(settings.events_ms / 1000, "stripe events", self.events.step),
            every(settings.refunds_s, "stripe refunds", self.refunds.step),
            every(settings.recharge_ms / 1000, "recharge", self.recharger.step),
            every(settings.backfill_s, "stripe backfill", self.backfill.step),
            every(COUNT_S, "count stripe events", self._count),
        ]

    def metrics(self) -> Iterator[Metric]:
        events = self.events
        yield from counters(
            {
                "tollgate_stripe_events_processed": ("Stripe events handled.", lambda: events.processed_total),
                "tollgate_stripe_events_retried": ("Failed attempts at one.", lambda: events.retried_total),
                "tollgate_recharges": ("Automatic recharges that were paid.", lambda: self.recharger.charged_total),
                "tollgate_recharges_declined": ("And that were not.", lambda: self.recharger.declined_total),
            }
        )
        yield from gauges(
            {
                "tollgate_stripe_events_dead": (
                    "Stripe events given up and not replayed.",
                    lambda: self._unprocessed.get("dead", 0),
                ),
                "tollgate_stripe_events_oldest_seconds": (
                    "Age of the oldest event that waits to be handled.",
                    lambda: self._oldest_event_s,
                ),
            }
        )

    async def _count(self) -> int:
        self._unprocessed, self._oldest_event_s = await self.inbox.counts()
        return 0

    async def _name_of(self, account_id: str) -> str:
        return (await self._stores.accounts.find(account_id)).name

    def operations(self, access: Access, controls: Callable[[], Controls]) -> list[Operation]:
        """What customers are offered where something is sold."""
        config = self._config
        purchases = PurchasesApi(
            access,
            self.purchases,
            self.checkout,
            self.packages,
            per_address_hour_max=config.purchases.per_address_hour_max,
            addresses_max=config.edge.addresses_max,
            controls=controls,
            now_ms=now_ms,
        )
        recharge = RechargeApi(access, self.recharges, self.packages, is_taxed=config.stripe.automatic_tax)
        return [*purchases.operations(), *recharge.operations()]

    def webhook_routes(self) -> list[web.AbstractRouteDef]:
        config = self._config
        secrets = tuple(filter(None, (each.strip() for each in config.stripe_webhook_secrets.split(","))))
        if not secrets:
            log.warning("STRIPE_WEBHOOK_SECRETS is not set: every webhook is refused")
        webhook = StripeWebhook(self.inbox, secrets, tolerance_s=config.stripe.signature_tolerance_s, now_s=time.time)
        return webhook.routes()

    async def close(self) -> None:
        await self.recharger.close()
        await self.stripe.close()


def load_catalogue() -> Packages:
    file = shipped("config") / "packages.toml"
    try:
        return load_packages(file.read_text(encoding="utf-8"))
    except (OSError, PackagesError) as error:
        raise ConfigError(f"{file}: {error}") from error
