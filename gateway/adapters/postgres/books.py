"""Exports of the books: the daily journal in a layout, or every line; each in one snapshot, streamed day by day."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta

import asyncpg

from gateway.adapters.postgres.database import SYSTEM, Connection, Pool, load_queries, outages
from gateway.adapters.postgres.provider_costs import day_start
from gateway.core.accounting.books import BOOK_ACCOUNTS, Layout, csv_line
from gateway.core.accounting.ledger import Bucket
from gateway.core.money import MicroCredits

LINES_AT_ONCE = 2000
LINE_COLUMNS = (
    "recorded_at", "event_at", "kind", "transfer", "request", "reason", "line", "account", "bucket", "amount_ucr",
)  # fmt: skip

Progress = Callable[[int], None]


class Books:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("books")

    async def export(
        self, layout: Layout, first: date, last: date, *, on_day: Progress = lambda days: None
    ) -> AsyncIterator[str]:
        """The journal from `first` to `last`, a piece at a time; `on_day` is told how many days are done."""
        with outages():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                async for piece in self._journal(connection, layout, first, last, on_day):
                    yield piece

    async def _journal(
        self, connection: Connection, layout: Layout, first: date, last: date, on_day: Progress
    ) -> AsyncIterator[str]:
        rows = await connection.fetch(self._sql["opening"], day_start(first), timeout=None)
        balances: dict[Bucket, MicroCredits] = dict.fromkeys(BOOK_ACCOUNTS, 0)
        balances |= {Bucket(row["bucket"]): row["amount"] for row in rows}
        yield layout.head(balances, first)
        for number, day in enumerate(days(first, last), 1):
            kinds: dict[str, dict[Bucket, MicroCredits]] = {}
            for row in await connection.fetch(self._sql["journals"], *bounds(day), timeout=None):
                bucket = Bucket(row["bucket"])
                kinds.setdefault(row["kind"], {})[bucket] = row["amount"]
                balances[bucket] += row["amount"]
            for kind, amounts in kinds.items():
                yield layout.journal(day, kind, amounts)
            on_day(number)
        yield layout.tail(balances, last + timedelta(days=1))

    async def lines(self, first: date, last: date, *, on_day: Progress = lambda days: None) -> AsyncIterator[str]:
        """Every line of the ledger from `first` to `last` as CSV."""
        yield csv_line(LINE_COLUMNS)
        with outages():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                for number, day in enumerate(days(first, last), 1):
                    cursor = await connection.cursor(self._sql["lines"], *bounds(day), timeout=None)
                    while rows := await cursor.fetch(LINES_AT_ONCE, timeout=None):
                        yield "".join(csv_line(_line(row)) for row in rows)
                    on_day(number)


def _line(row: "asyncpg.Record") -> list[object]:
    return [
        _moment(row["recorded_at"]),
        _moment(row["event_at"]),
        row["kind"],
        row["id"],
        row["request_id"] or "",
        row["reason"],
        row["line"],
        "" if str(row["account_id"]) == SYSTEM else row["account_id"],
        row["bucket"],
        row["amount"],
    ]


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def bounds(day: date) -> tuple[datetime, datetime]:
    return day_start(day), day_start(day + timedelta(days=1))
