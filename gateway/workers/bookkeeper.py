"""The bookkeeper: books what each day cost at the provider once the day is over, and closes each month's statements."""

from collections.abc import Callable
from datetime import date, datetime, timedelta

import structlog

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
        self.booked_days_total = 0
        self.statements_total = 0
        self.waits_for = ""  # why the next day is not booked

    async def step(self) -> int:
        """Book the next day, and make some statements; returns how much was done. Raises `LedgerUnavailable`."""
        last_month = (self._now().date().replace(day=1) - timedelta(days=1)).replace(day=1)
        made = await close_month(self._statements, last_month)
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


async def close_month(statements: Statements, month: date) -> int:
    """Make some of the month's missing statements; returns how many. What is not sealed yet waits."""
    made = 0
    for account_id in await statements.unclosed(month, STATEMENTS_AT_ONCE):
        try:
            await statements.tell(account_id, month)
        except (NotYetSealed, NoStatement):
            continue
        made += 1
    return made
