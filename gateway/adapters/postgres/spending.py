"""What was spent lately, by minute and by hour, in Postgres: rolled up from the posted usage a few moments behind it.

The sums are made again from what they sum, never added to, so a crash, a second watcher or a late commit changes none.
"""

from datetime import datetime, timedelta
from itertools import groupby

import asyncpg
import msgspec

from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.core.guard.anomaly import Spending, Subject, Window
from gateway.core.money import MicroCredits

# Longer than a posting may take from its beginning, which dates its rows, to its commit.
LATE_COMMIT = timedelta(seconds=30)
CHUNK = timedelta(hours=1)


class Rolled(msgspec.Struct, frozen=True):
    """What a step rolled up: accounts whose sums changed, and whether that is all there is."""

    account_ids: frozenset[str] = frozenset()
    is_behind: bool = False


class SpendingBook:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("spending")
        self._reached: datetime | None = None

    async def roll(self) -> Rolled:
        """Roll up what was posted since; an hour at most, and by one process at a time.

        At first it names everybody who spent in the last day, too: whoever rolled that up may have ended before anybody
        was judged.
        """
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                if not await connection.fetchval(self._sql["lock"]):
                    return Rolled()
                row = await connection.fetchrow(self._sql["reached"], self._reached)
                assert row is not None  # it selects no table
                now: datetime = row["now"]
                start: datetime = (row["since"] - LATE_COMMIT).replace(second=0, microsecond=0)
                until = min(now, start + CHUNK)
                account_ids = await self._roll(connection, start, until)
                if self._reached is None:
                    rows = await connection.fetch(self._sql["recent"])
                    account_ids |= {str(row["account_id"]) for row in rows}
        self._reached = until
        return Rolled(account_ids, until < now)

    async def _roll(self, connection: Connection, start: datetime, until: datetime) -> frozenset[str]:
        rows = await connection.fetch(self._sql["roll_minutes"], start, until)
        if rows:
            columns = ([row[name] for row in rows] for name in ("account_id", "key_id", "hour"))
            await connection.execute(self._sql["roll_hours"], *columns)
        return frozenset(str(row["account_id"]) for row in rows)

    async def forget(self) -> int:
        """Let go of what nothing is compared with any more."""
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                if self._reached is not None and await connection.fetchval(self._sql["lock"]):
                    await connection.execute(self._sql["forget_minutes"], self._reached)
                    await connection.execute(self._sql["forget_hours"], self._reached)
        return 0

    async def of(
        self, account_ids: frozenset[str], burst_minutes: int, least: MicroCredits
    ) -> list[tuple[str, dict[Subject, Spending]]]:
        """For each of these that is active and spent more than `least` in a day: it, its members and its keys."""
        with outages():
            rows = await self._pool.fetch(self._sql["spending"], list(account_ids), burst_minutes, least)
        return [
            (str(account_id), {_subject(row): _spending(row) for row in of_account})
            for account_id, of_account in groupby(rows, key=lambda row: row["account_id"])
        ]


def _subject(row: "asyncpg.Record") -> Subject:
    member_id = None if row["member_id"] is None else str(row["member_id"])
    return Subject(str(row["account_id"]), member_id, row["key_id"])


def _spending(row: "asyncpg.Record") -> Spending:
    return Spending(
        row["burst"],
        Window(row["hour"], row["hours_sum"], row["hours_known"]),
        Window(row["day"], row["days_sum"], row["days_known"]),
    )
