"""Reported usage in Postgres: one row for each idempotency key, there before anything is debited, and kept for ever."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.core.access.callers import Caller
from gateway.core.calls.usage_reports import Reported
from gateway.core.ids import uuid_of


class ReportMismatch(Exception):
    """The idempotency key was used with another report."""


class Report:
    """A report while this process alone deals with it."""

    def __init__(
        self, connection: Connection, sql: dict[str, str], request_id: str, content: Reported, is_settled: bool
    ):
        self._connection = connection
        self._sql = sql
        self.request_id = request_id
        self.content = content
        self.is_settled = is_settled

    async def settled(self) -> None:
        await self._connection.execute(self._sql["settled"], self.request_id)

    async def renumber(self, request_id: str) -> None:
        """It was refused: the next try is another call, in the windows of its own time."""
        await self._connection.execute(self._sql["renumber"], self.request_id, request_id)


class UsageReports:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("usage_reports")

    @asynccontextmanager
    async def opened(
        self, account_id: str, key: str, fingerprint: bytes, request_id: str, content: Reported
    ) -> AsyncIterator[Report]:
        """The report of this key, made now unless it was before. Raises `ReportMismatch`, `LedgerUnavailable`."""
        encoded = msgspec.json.encode(content).decode()
        with outages():
            async with self._pool.acquire() as connection:
                await connection.execute(self._sql["claim"], account_id, key, fingerprint, request_id, encoded)
                async with connection.transaction():
                    row = await connection.fetchrow(self._sql["lock"], account_id, key)
                    if row is None or row["fingerprint"] != fingerprint:
                        raise ReportMismatch
                    kept = msgspec.json.decode(row["content"], type=Reported)
                    yield Report(connection, self._sql, str(row["request_id"]), kept, row["is_settled"])

    async def payer(self, name_or_id: str, reporter: Caller) -> Caller | None:
        """Whoever pays for what `reporter` reports of another account; None if there is no such account."""
        if "\0" in name_or_id:
            return None
        with outages():
            row = await self._pool.fetchrow(self._sql["account"], name_or_id, uuid_of(name_or_id))
        if row is None:
            return None
        return Caller(
            account_id=str(row["id"]),
            key_id=reporter.key_id,
            status=row["status"],
            plan=row["plan"],
            priority=row["priority"],
            time_zone=row["time_zone"],
        )
