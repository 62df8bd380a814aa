"""Reported usage in Postgres: one row for each idempotency key, there before anything is debited, and kept for ever."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.core.access.callers import Caller
from gateway.core.calls.usage_reports import Reported
from gateway.core.ids import uuid_of


class ReportMismatch(Exception):
    """The idempotency key was used with another report."""


class Report:
    """A report while this process alone deals with it. `is_shadow`: it is measured, and not charged."""

    def __init__(self, connection: Connection, sql: dict[str, str], row: asyncpg.Record) -> None:
        self._connection = connection
        self._sql = sql
        self.request_id = str(row["request_id"])
        self.content = msgspec.json.decode(row["content"], type=Reported)
        self.is_shadow: bool = row["is_shadow"]
        self.is_settled: bool = row["is_settled"]

    async def settled(self) -> None:
        await self._connection.execute(self._sql["settled"], self.request_id)

    async def refused(self) -> None:
        """Nothing was taken: the next try is another call, in the windows of its own time."""
        await self._connection.execute(self._sql["refused"], self.request_id)


class UsageReports:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("usage_reports")

    @asynccontextmanager
    async def opened(
        self,
        account_id: str,
        key: str,
        fingerprint: bytes,
        request_id: str,
        content: Reported,
        *,
        is_shadow: bool = False,
    ) -> AsyncIterator[Report]:
        """The report of this key, made now unless it was before; under this id and mode, unless a try goes on already.

        Raises `ReportMismatch`, `LedgerUnavailable`.
        """
        encoded = msgspec.json.encode(content).decode()
        with outages():
            async with self._pool.acquire() as connection:
                row = (account_id, key, fingerprint, request_id, encoded, is_shadow)
                await connection.execute(self._sql["claim"], *row)
                async with connection.transaction():
                    found = await connection.fetchrow(self._sql["lock"], account_id, key, is_shadow)
                    if found is None or found["fingerprint"] != fingerprint:
                        raise ReportMismatch
                    yield Report(connection, self._sql, found)

    async def kept(self, account_id: str, key: str, fingerprint: bytes) -> Reported | None:
        """What was reported before with this key and in these words, at its price."""
        with outages():
            content = await self._pool.fetchval(self._sql["kept"], account_id, key, fingerprint)
        return None if content is None else msgspec.json.decode(content, type=Reported)

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
