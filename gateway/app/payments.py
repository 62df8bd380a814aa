"""What deals with Stripe, built out of the configuration: for the gateway its routes, for the workers their steps."""

import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from gateway.adapters.database import Pool
from gateway.adapters.ledger import Ledger
from gateway.adapters.purchases import Purchases
from gateway.adapters.stripe import CheckoutSettings, Stripe
from gateway.adapters.stripe_inbox import StripeInbox
from gateway.app.sources import new_request_id, now_ms
from gateway.config import Config, ConfigError
from gateway.core.packages import Packages, PackagesError, load_packages
from gateway.resources import shipped
from gateway.web.checkout import Checkout
from gateway.web.purchases import Authenticate, PurchaseRoutes
from gateway.web.stripe_webhook import StripeWebhook
from gateway.workers.payments import Payments
from gateway.workers.stripe_events import StripeEvents

log = structlog.get_logger(__name__)


class StripeParts:
    """Stripe's client and what our side keeps of it. To be closed."""

    def __init__(self, config: Config, pool: Pool, ledger: Ledger) -> None:
        self._config = config
        settings = config.stripe
        self.stripe = Stripe(
            config.stripe_key,
            api_url=settings.api_url,
            timeout_s=settings.timeout_ms / 1000,
            retries_max=settings.retries_max,
        )
        self.purchases = Purchases(pool, ledger, freeze=settings.freeze, new_id=new_request_id, now_ms=now_ms)
        self.inbox = StripeInbox(pool)
        self.payments = Payments(self.stripe, self.purchases)
        self.events = StripeEvents(
            self.inbox,
            self.stripe,
            self.purchases,
            self.payments,
            at_once_max=settings.events_at_once_max,
            attempts_max=settings.event_attempts_max,
            reviews_disputes=settings.freeze == "account",
        )

    def routes(
        self, authenticate: Authenticate, name_of: Callable[[str], Awaitable[str]]
    ) -> list[web.AbstractRouteDef]:
        """The paths of purchases and of Stripe's webhook."""
        config = self._config
        secrets = tuple(filter(None, (each.strip() for each in config.stripe_webhook_secrets.split(","))))
        if not secrets:
            log.warning("STRIPE_WEBHOOK_SECRETS is not set: every webhook is refused")
        packages = load_catalogue()
        pages = CheckoutSettings(
            config.stripe.return_url, config.stripe.automatic_tax, config.stripe.tax_ids, config.stripe.invoices
        )
        checkout = Checkout(
            self.purchases, self.stripe, packages, pages, name_of, per_hour_max=config.purchases.per_hour_max
        )
        selling = config.purchases
        offered = PurchaseRoutes(
            authenticate, self.purchases, checkout, packages, is_open=selling.enabled, banner=selling.banner
        )
        webhook = StripeWebhook(self.inbox, secrets, tolerance_s=config.stripe.signature_tolerance_s, now_s=time.time)
        return [*offered.routes(), *webhook.routes()]

    async def close(self) -> None:
        await self.stripe.close()


def stripe_parts(config: Config, pool: Pool, ledger: Ledger) -> StripeParts | None:
    """None without a key: then nothing is sold, and nobody listens to Stripe."""
    return StripeParts(config, pool, ledger) if config.stripe_key else None


def load_catalogue() -> Packages:
    file = shipped("config") / "packages.toml"
    try:
        return load_packages(file.read_text(encoding="utf-8"))
    except (OSError, PackagesError) as error:
        raise ConfigError(f"{file}: {error}") from error
