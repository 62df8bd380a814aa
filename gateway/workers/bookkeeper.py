"""The bookkeeper: books what each day cost at the provider, once the day is over."""

import structlog

from gateway.adapters.provider_costs import ProviderCosts
from gateway.core.provider_costs import CostUnknown

log = structlog.get_logger(__name__)


class Bookkeeper:
    def __init__(self, costs: ProviderCosts) -> None:
        self._costs = costs
        self.booked_days_total = 0
        self.waits_for = ""  # why the next day is not booked

    async def step(self) -> int:
        """Book the next day that is over; returns 1 if it did. Raises `LedgerUnavailable`."""
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
