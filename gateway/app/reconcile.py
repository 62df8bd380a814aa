"""A reconciliation built out of the configuration: everybody who can be asked here, and why others cannot."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from gateway.adapters.openai_reports import OpenAIReports
from gateway.adapters.provider_costs import ProviderCosts
from gateway.adapters.reconciliation import ReconciliationReads
from gateway.app.sources import now_ms
from gateway.app.stores import Stores, open_reading
from gateway.config import Config
from gateway.core.reconciliation import Source, Unasked
from gateway.workers.ledger_day import LedgerDay
from gateway.workers.openai_day import OpenAIDay
from gateway.workers.reconciler import Reconciliation


@asynccontextmanager
async def open_reconciliation(config: Config, stores: Stores) -> AsyncIterator[Reconciliation]:
    """Raises `ConfigError` when the replica cannot be read."""
    settings = config.reconcile
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_reading(config))
        reads = ReconciliationReads(pool)
        ledger = LedgerDay(
            reads,
            stores.pool,
            stores.link,
            samples=settings.samples,
            seed=settings.seed,
            margin_percent_min=settings.margin_percent_min,
            ppm_max=settings.mismatch_ppm_max,
        )
        stripe: Source = Unasked("payments at Stripe", "nothing is sold here: STRIPE_SECRET_KEY is not set")
        if config.stripe_key:
            stripe = await stack.enter_async_context(_stripe_day(config, reads))
        openai: Source = Unasked("tokens at OpenAI", "OPENAI_ADMIN_KEY is not set")
        if config.openai_admin_key:
            reports = OpenAIReports(
                config.upstream_url,
                config.openai_admin_key,
                timeout_s=settings.openai_timeout_ms / 1000,
                attempts_max=settings.openai_attempts_max,
            )
            openai = OpenAIDay(reports, pool, ppm_max=settings.mismatch_ppm_max)
        shadow = Unasked("shadow against real", "no account is billed in shadow")
        yield Reconciliation(ProviderCosts(pool, stores.ledger, now_ms=now_ms), [stripe, ledger, openai, shadow])


@asynccontextmanager
async def _stripe_day(config: Config, reads: ReconciliationReads) -> AsyncIterator[Source]:
    # The SDK is large: it is imported only where something is sold.
    from gateway.adapters.stripe import Stripe
    from gateway.workers.stripe_day import StripeDay

    stripe = Stripe(
        config.stripe_key,
        api_url=config.stripe.api_url,
        timeout_s=config.stripe.timeout_ms / 1000,
        retries_max=config.stripe.retries_max,
    )
    try:
        yield StripeDay(
            stripe,
            reads,
            freeze=config.stripe.freeze,
            late_days=config.reconcile.late_days,
            ppm_max=config.reconcile.mismatch_ppm_max,
        )
    finally:
        await stripe.close()
