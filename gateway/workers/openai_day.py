"""A day at OpenAI beside what we metered and booked of it: tokens by model, and what they cost."""

from gateway.adapters.openai.reports import OpenAIReports, ReportsUnavailable
from gateway.adapters.postgres.database import Pool
from gateway.adapters.postgres.recorded_cards import recorded_cards
from gateway.core.accounting.reconciliation import Check, DayCosts, Tokens, compare, not_checked, provider_usage
from gateway.core.pricing.rates import RateCard


class OpenAIDay:
    label = "OpenAI's usage and costs"

    def __init__(self, reports: OpenAIReports, pool: Pool, *, ppm_max: int) -> None:
        self._reports = reports
        self._pool = pool
        self._ppm_max = ppm_max

    async def checks(self, of: DayCosts) -> tuple[Check, ...]:
        """Raises `LedgerUnavailable`."""
        if of.unknown:
            return (not_checked("tokens at OpenAI", of.unknown, is_outage=True),)
        try:
            told = await self._reports.tokens(of.day)
            cost = await self._reports.cost(of.day, of.day)
        except ReportsUnavailable as error:
            return (not_checked("tokens at OpenAI", str(error), is_outage=True),)
        cards = list((await recorded_cards(self._pool)).values())
        provider: dict[str, Tokens] = {}
        for model, used in told.items():
            name = row_of(cards, model)
            provider[name] = provider.get(name, Tokens()) + used
        ours = {each.model: Tokens(each.usage.input_total, each.usage.output_total, each.calls) for each in of.models}
        booked = sum(each.cost for each in of.models)
        return (
            provider_usage(provider, ours, ppm_max=self._ppm_max),
            compare("cost at OpenAI", "µcr", cost, booked, ppm_max=self._ppm_max),
        )


def row_of(cards: list[RateCard], model: str) -> str:
    """The name under which we book what OpenAI served as `model`; its own if no card has it."""
    rows = (card.find(model) for card in cards)
    return next((row.model for row in rows if row is not None), model)
