"""What shadow billing has measured, beside what was really charged: only reads."""

from datetime import timedelta

import msgspec

from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.core.money import MicroCredits


class Compared(msgspec.Struct, frozen=True):
    """One account's calls of one model within a window."""

    account_id: str
    account: str
    model: str
    charged_calls: int
    charged: MicroCredits
    shadow_calls: int
    shadow: MicroCredits  # what they would have cost


async def compare(pool: Pool, window: timedelta, account_id: str | None = None) -> list[Compared]:
    """By account and model, in the order of their names."""
    with outages():
        rows = await pool.fetch(load_queries("shadow")["report"], window, account_id)
    return [
        Compared(
            str(row["account_id"]),
            row["account"],
            row["model"],
            row["charged_calls"],
            row["charged"],
            row["shadow_calls"],
            row["shadow"],
        )
        for row in rows
    ]
