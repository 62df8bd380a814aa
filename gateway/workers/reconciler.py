"""The reconciler: compares the books of a day with everybody else's, and does so by itself once a day is over.

Of several workers one does it. A report that could not ask everybody is kept as well, and the day is tried again.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime, timedelta

import structlog

from gateway.adapters.postgres.notices import Notices
from gateway.adapters.postgres.provider_costs import ProviderCosts
from gateway.adapters.postgres.reconciliation import Reports
from gateway.core.accounting.reconciliation import Check, DayCosts, Report, Source, in_words
from gateway.core.guard.notices import Kind
from gateway.core.pricing.provider_costs import CostUnknown

log = structlog.get_logger(__name__)

Progress = Callable[[str], None]


class Reconciliation:
    """What one needs for a while: `sources` are asked one after the other."""

    def __init__(self, costs: ProviderCosts, sources: Sequence[Source]) -> None:
        self._costs = costs
        self._sources = sources

    async def of(self, day: date, on_progress: Progress = lambda _: None) -> Report:
        """Raises `LedgerUnavailable`."""
        try:
            costs = DayCosts(day, tuple(await self._costs.of_days(day, day)))
        except CostUnknown as error:
            costs = DayCosts(day, unknown=str(error))
        checks: list[Check] = []
        for source in self._sources:
            on_progress(source.label)
            checks += await source.checks(costs)
        return Report(day, self._costs.is_over(day), tuple(checks), costs.models)


class Reconciler:
    """Looks every `step` whether a day is due: from `after_hour` (UTC) on, up to `days_back` days ago."""

    def __init__(
        self,
        reports: Reports,
        notices: Notices,
        opened: Callable[[], AbstractAsyncContextManager[Reconciliation]],
        *,
        after_hour: int,
        days_back: int,
        retry_s: int,
        now: Callable[[], datetime],
    ) -> None:
        self._reports = reports
        self._notices = notices
        self._opened = opened
        self._after_hour = after_hour
        self._days_back = days_back
        self._retry = timedelta(seconds=retry_s)
        self._now = now
        self.newest: Report | None = None  # whoever made it

    async def step(self) -> int:
        """Reconcile the newest day that is due; returns 1 if there was one. Raises `LedgerUnavailable`."""
        now = self._now()
        report = await self._reconcile(now) if now.hour >= self._after_hour else None
        if report is None:
            kept = await self._reports.newest()  # perhaps another's
            self.newest = None if kept is None else kept.report
            return 0
        self.newest = report
        return 0 if report.outages else 1

    async def _reconcile(self, now: datetime) -> Report | None:
        async with self._reports.claimed() as is_ours:
            # Only whoever holds the claim knows that no other report is on its way.
            if not is_ours:
                return None
            kept = await self._reports.newest()
            if kept is not None and kept.report.outages and now - kept.recorded_at < self._retry:
                return None
            day = await self._reports.due(now.date() - timedelta(days=1), days=self._days_back)
            if day is None:
                return None
            async with self._opened() as reconciliation:
                report = await reconciliation.of(day)
            # Told first: a crash in between does both again, and a notice that was raised is not raised twice.
            await self._alarm(report)
            await self._reports.keep(report)
        return report

    async def _alarm(self, report: Report) -> None:
        for check in report.mismatches:
            log.error(
                "the books disagree",
                day=str(report.day),
                check=check.name,
                expected=check.expected,
                found=check.found,
                unit=check.unit,
                examples=check.notes,
            )
            what = f"{check.name}, {report.day}"
            fields = {
                "what": what,
                "expected": in_words(check.expected, check.unit),
                "found": in_words(check.found, check.unit),
            }
            await self._notices.tell(Kind.MISMATCH, None, fields, subject=what)
        for check in report.outages:
            log.warning("not reconciled yet", day=str(report.day), check=check.name, why=check.notes)
