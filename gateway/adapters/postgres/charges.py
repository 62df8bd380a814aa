"""Charges: what Postgres has charged to a capped account, member or key in its windows, and up to which event."""

from datetime import UTC, datetime, timedelta

from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.adapters.redis.counters import Charged
from gateway.adapters.redis.credits import ShardCold
from gateway.core.accounting.posting import Position
from gateway.core.guard.caps import Holder
from gateway.core.guard.windows import Windows, id_bound
from gateway.core.shards import shard_of

# A call is posted after its window's beginning, give or take what clocks differ.
SKEW = timedelta(hours=1)


class Charges:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("caps")

    async def of(self, holder: Holder, windows: Windows, *, has_day: bool, has_month: bool) -> Charged:
        """What was charged to `holder` in the windows that have caps. Raises LedgerUnavailable or ShardCold."""
        day, month = windows
        begun_ms = month.start_ms if has_month else day.start_ms
        bounds = [id_bound(each) for each in (day.start_ms, day.end_ms, month.start_ms, month.end_ms)]
        begun_at = datetime.fromtimestamp(begun_ms / 1000, UTC) - SKEW
        shard = shard_of(holder.account_id)
        with outages():
            row = await self._pool.fetchrow(self._sql["charged"], shard, *holder, *bounds, begun_at)
        assert row is not None, "a shard has no row"
        if row["is_rebuilding"]:
            raise ShardCold(f"shard {shard} is being rebuilt")
        return Charged(
            row["epoch"],
            Position(row["position_epoch"], row["position_seq"]),
            row["day"] if has_day else None,
            row["month"] if has_month else None,
        )
