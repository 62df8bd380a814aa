"""Every rate card that was ever in use, as Postgres keeps it: what a charge can be recomputed with."""

from gateway.adapters.postgres.database import Pool, outages
from gateway.core.pricing.rate_card import RateCardError, load_card
from gateway.core.pricing.rates import RateCard


async def recorded_cards(pool: Pool) -> dict[str, RateCard]:
    """The cards by version; raises `LedgerUnavailable`. One that this program cannot read is left out."""
    with outages():
        rows = await pool.fetch("SELECT version, name, text FROM rate_card")
    cards = {}
    for row in rows:
        try:
            card = load_card(row["text"], row["name"])
        except RateCardError:
            continue  # whoever needs it finds it missing
        cards[row["version"]] = card
    return cards
