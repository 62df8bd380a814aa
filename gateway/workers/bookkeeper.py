"""The bookkeeper: books what each day cost at the provider once the day is over, and closes each month's statements."""

from collections.abc import Callable
from datetime import date, datetime, timedelta

import structlog

from gateway.adapters.postgres.database import SYSTEM
from gateway.adapters.postgres.provider_costs import ProviderCosts
from gateway.adapters.postgres.statements import NoStatement, NotYetSealed, Statements
from gateway.core.pricing.provider_costs import CostUnknown

log = structlog.get_logger(__name__)

STATEMENTS_AT_ONCE = 100


class Bookkeeper:
    def __init__(self, costs: ProviderCosts, statements: Statements, *, now: Callable[[], datetime]) -> None:
        self._costs = costs
        self._statements = statements
        self._now = now
        self._closing: MonthClosing | None = None
        self.booked_days_total = 0
        self.statements_total = 0
        self.waits_for = ""  # why the next day is not booked

    async def step(self) -> int:
        """Book the next day, and make some statements; returns how much was done. Raises `LedgerUnavailable`."""
        last_month = (self._now().date().replace(day=1) - timedelta(days=1)).replace(day=1)
        if self._closing is None or self._closing.month != last_month:
            self._closing = MonthClosing(self._statements, last_month)
        made = await self._closing.step()
        self.statements_total += made
        return made + await self._book()

    async def _book(self) -> int:
        day = await self._costs.next_day()
        if day is None:
            return 0
        try:
            await self._costs.book(day)
        except CostUnknown as error:
            if str(error) != self.waits_for:
                log.error("day not booked", day=str(day), error=str(error))
            self.waits_for = str(error)
            return 0
        self.waits_for = ""
        self.booked_days_total += 1
        return 1


class MonthClosing:
    """Makes a month's missing statements, account by account. What is not sealed yet waits for the next round.

    A step looks behind the last one only, and not at all once a round found nothing: accounts may be a million.
    """

    def __init__(self, statements: Statements, month: date, *, at_once: int = STATEMENTS_AT_ONCE) -> None:
        self.month = month
        self._statements = statements
        self._at_once = at_once
        self._after = SYSTEM
        self._is_done = False

    async def step(self) -> int:
        """Make some; returns how many."""
        if self._is_done or not self._statements.is_over(self.month):
            return 0
        wanting = await self._statements.unclosed(self.month, self._at_once, after=self._after)
        self._is_done = not wanting and self._after == SYSTEM
        self._after = wanting[-1] if len(wanting) == self._at_once else SYSTEM
        made = 0
        for account_id in wanting:
            try:
                await self._statements.tell(account_id, self.month)
            except (NotYetSealed, NoStatement):
                continue
            made += 1
        return made
