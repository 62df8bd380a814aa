"""Charges: what Postgres has charged to a capped account, member or key in its windows, and up to which event."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from gateway.adapters.postgres.database import IDLE_IN_TRANSACTION_S, Pool, load_queries, outages
from gateway.adapters.redis.counters import Charged
from gateway.adapters.redis.credits import ShardCold
from gateway.core.accounting.posting import Position
from gateway.core.guard.caps import Holder
from gateway.core.guard.windows import Windows, id_bound
from gateway.core.money import MicroCredits
from gateway.core.shards import shard_of

# A call is posted after its window's beginning, give or take what clocks differ.
SKEW = timedelta(hours=1)
# A line is dated by the beginning of its transaction, and no posting lasts as long, even if its process sleeps in it.
FINAL_AFTER = timedelta(seconds=2 * IDLE_IN_TRANSACTION_S)


class Settled(NamedTuple):
    """What was charged before a moment, for good."""

    until: datetime
    day: MicroCredits
    month: MicroCredits


class Charges:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("caps")

    async def of(
        self, holder: Holder, windows: Windows, *, has_day: bool, has_month: bool, settled: Settled | None = None
    ) -> Charged:
        """What was charged to `holder` in the windows that have caps. Raises LedgerUnavailable or ShardCold.

        With what `settled` told, only the lines since then are summed up, which takes no time.
        """
        begun_at = _begun_at(windows, has_month=has_month)
        known = settled or Settled(begun_at, 0, 0)
        shard, since = shard_of(holder.account_id), max(begun_at, known.until)
        with outages():
            row = await self._pool.fetchrow(self._sql["charged"], shard, *holder, *_bounds(windows), since)
        assert row is not None, "a shard has no row"
        if row["is_rebuilding"]:
            raise ShardCold(f"shard {shard} is being rebuilt")
        return Charged(
            row["epoch"],
            Position(row["position_epoch"], row["position_seq"]),
            known.day + row["day"] if has_day else None,
            known.month + row["month"] if has_month else None,
        )

    async def settled(self, holder: Holder, windows: Windows, *, has_month: bool) -> Settled:
        """What was charged to `holder` until two minutes ago, which may take a while. Raises LedgerUnavailable."""
        begun_at = _begun_at(windows, has_month=has_month)
        with outages():
            row = await self._pool.fetchrow(self._sql["settled"], *holder, *_bounds(windows), begun_at, FINAL_AFTER)
        assert row is not None, "sums are one row"
        return Settled(row["until"], row["day"], row["month"])


def _begun_at(windows: Windows, *, has_month: bool) -> datetime:
    begun_ms = windows.month.start_ms if has_month else windows.day.start_ms
    return datetime.fromtimestamp(begun_ms / 1000, UTC) - SKEW


def _bounds(windows: Windows) -> list[str]:
    """The request ids that the windows lie between."""
    day, month = windows
    return [id_bound(each) for each in (day.start_ms, day.end_ms, month.start_ms, month.end_ms)]
