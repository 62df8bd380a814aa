"""Watches what is spent: unusual spending is put in review within seconds, and low balances are warned of."""

from typing import Literal

import structlog

from gateway.adapters.postgres.alerts import Alerts
from gateway.adapters.postgres.reviews import Reviews
from gateway.adapters.postgres.spending import SpendingBook
from gateway.core.guard.anomaly import Rules, Spending, Subject, Verdict, judge, widen

log = structlog.get_logger(__name__)

Mode = Literal["review", "notify", "off"]


class Watcher:
    def __init__(self, spending: SpendingBook, reviews: Reviews, alerts: Alerts, *, mode: Mode, rules: Rules) -> None:
        self._spending = spending
        self._reviews = reviews
        self._alerts = alerts
        self._mode = mode
        self._rules = rules
        self._due: set[str] = set()  # accounts that were rolled up and not judged yet
        self.opened_total = 0

    async def step(self) -> int:
        """Roll up what was posted, judge who spent, and warn of what is left; returns whether there is more."""
        rolled = await self._spending.roll()
        self._due |= rolled.account_ids
        if self._due and not rolled.is_behind:
            due = frozenset(self._due)
            if self._mode != "off":
                rules = self._rules
                for _, spent in await self._spending.of(due, rules.burst_minutes, rules.least):
                    await self._judge(spent)
            await self._alerts.warn(due)
            self._due.clear()
        return int(rolled.is_behind)

    async def _judge(self, spent: dict[Subject, Spending]) -> None:
        verdicts = {
            subject: verdict
            for subject, spending in spent.items()
            if (verdict := judge(subject, spending, self._rules)) is not None
        }
        for subject, verdict in widen(verdicts, self._rules.width).items():
            await self._act(subject, verdict)

    async def _act(self, subject: Subject, verdict: Verdict) -> None:
        told = {"account_id": subject.account_id, "member_id": subject.member_id, "key_id": subject.key_id}
        if self._mode == "notify":
            if await self._reviews.mention(subject, verdict):
                log.warning("unusual spending", figures=verdict.text(), **told)
            return
        reference = await self._reviews.open(subject, verdict)
        if reference is not None:
            self.opened_total += 1
            log.warning("put in review", reference=reference, figures=verdict.text(), **told)
