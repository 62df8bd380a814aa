"""What an account has used, in pages: sums of its calls by day, model, member or key."""

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.core.guard.windows import id_bound
from gateway.core.money import MicroCredits

Grouping = Literal["day", "model", "member", "key"]

# How much the clock of a gateway may be ahead of the database's.
SKEW = timedelta(hours=1)


class UsageSum(msgspec.Struct, frozen=True):
    """What the calls of one group were; `group` is "" for those of no member."""

    group: str
    calls: int
    charged: MicroCredits
    input_tokens: int
    output_tokens: int


class UsagePages:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("usage_pages")

    async def sums(
        self,
        account_id: str,
        grouping: Grouping,
        span_ms: tuple[int, int],
        time_zone: str,
        *,
        count: int,
        after: str | None,
    ) -> list[UsageSum]:
        """The sums of the calls that were opened in the span (its end is not in it), from behind the group `after`."""
        recorded_since = datetime.fromtimestamp(span_ms[0] // 1000, UTC) - SKEW
        bounds = [id_bound(each) for each in span_ms]
        with outages():
            rows = await self._pool.fetch(
                self._sql["by"], account_id, recorded_since, *bounds, after, grouping, time_zone, count
            )
        return [
            UsageSum(each["grp"], each["calls"], each["charged"], each["input_tokens"], each["output_tokens"])
            for each in rows
        ]
