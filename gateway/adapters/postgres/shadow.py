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


class Comparison(msgspec.Struct, frozen=True):
    lines: list[Compared]  # the largest first
    lines_total: int  # of which these may be a part
    total: Compared  # of all of them


async def compare(pool: Pool, window: timedelta, account_id: str | None = None, *, lines_max: int = 100) -> Comparison:
    """By account and model. It may read long: of every call in the window."""
    with outages():
        rows = await pool.fetch(load_queries("shadow")["report"], window, account_id, lines_max, timeout=None)
    if not rows:
        return Comparison([], 0, Compared("", "", "", 0, 0, 0, 0))
    first = rows[0]
    lines = [
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
    sums = (first[f"all_{name}"] for name in ("charged_calls", "charged", "shadow_calls", "shadow"))
    return Comparison(lines, first["lines_total"], Compared("", "", "", *sums))
