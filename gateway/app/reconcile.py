"""A reconciliation built out of the configuration: everybody who can be asked here, and why others cannot."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from prometheus_client.core import Metric

from gateway.adapters.openai.reports import OpenAIReports
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.postgres.provider_costs import ProviderCosts, day_start
from gateway.adapters.postgres.reconciliation import ReconciliationReads, Reports
from gateway.app.sources import now, now_ms
from gateway.app.stores import Stores, open_audit_link, open_reading
from gateway.config import Config, ConfigError
from gateway.core.accounting.reconciliation import Report, Source, Unasked
from gateway.loops import every
from gateway.web.metrics import gauges
from gateway.workers.ledger_day import LedgerDay
from gateway.workers.openai_day import OpenAIDay
from gateway.workers.reconciler import Reconciler, Reconciliation


class ReconcileParts:
    """The daily reconciliation, for the workers."""

    def __init__(self, config: Config, stores: Stores) -> None:
        settings = config.reconcile
        self._is_daily = settings.daily
        self._check_s = settings.check_ms / 1000
        self.reconciler = Reconciler(
            Reports(stores.pool),
            stores.notices,
            partial(_beside_other_work, config, stores),
            after_hour=settings.after_hour_utc,
            days_back=settings.days_back,
            retry_s=settings.retry_s,
            now=now,
        )

    def loops(self) -> list[Coroutine[None, None, None]]:
        return [every(self._check_s, "reconcile", self.reconciler.step)] if self._is_daily else []

    def metrics(self) -> Iterator[Metric]:
        """All of the newest report, whichever worker made it; 0 while there is none."""

        def of_newest(read: Callable[[Report], float]) -> Callable[[], float]:
            return lambda: read(self.reconciler.newest) if self.reconciler.newest is not None else 0.0

        yield from gauges(
            {
                "tollgate_reconciliation_mismatches": (
                    "Checks of the newest reconciliation that do not agree.",
                    of_newest(lambda report: len(report.mismatches)),
                ),
                "tollgate_reconciliation_unchecked": (
                    "Checks of the newest reconciliation that could not be made.",
                    of_newest(lambda report: len(report.outages)),
                ),
                "tollgate_reconciled_day_timestamp_seconds": (
                    "When the day of the newest reconciliation began.",
                    of_newest(lambda report: day_start(report.day).timestamp()),
                ),
            }
        )


def openai_reports(config: Config) -> OpenAIReports:
    return OpenAIReports(
        config.upstream_url,
        config.openai_admin_key,
        timeout_s=config.reconcile.openai_timeout_ms / 1000,
        attempts_max=config.reconcile.openai_attempts_max,
    )


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
            await stack.enter_async_context(open_audit_link(config)),
            read_at_once=config.audit.read_at_once,
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
            openai = OpenAIDay(openai_reports(config), pool, ppm_max=settings.mismatch_ppm_max)
        yield Reconciliation(ProviderCosts(pool, stores.ledger, now_ms=now_ms), [stripe, ledger, openai])


@asynccontextmanager
async def _beside_other_work(config: Config, stores: Stores) -> AsyncIterator[Reconciliation]:
    """A replica that is away is an outage, which another try may mend."""
    async with AsyncExitStack() as stack:
        try:
            opened = await stack.enter_async_context(open_reconciliation(config, stores))
        except ConfigError as error:
            raise LedgerUnavailable(str(error)) from error
        yield opened


@asynccontextmanager
async def _stripe_day(config: Config, reads: ReconciliationReads) -> AsyncIterator[Source]:
    # The SDK is large: it is imported only where something is sold.
    from gateway.adapters.stripe.client import Stripe
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
