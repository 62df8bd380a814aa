"""Alerts: when accounts want to be warned of a low balance, and raising the warnings that are due."""

import asyncpg

from gateway.adapters.postgres.audit_log import AuditLog, Signature
from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.adapters.postgres.notices import Notices
from gateway.core.guard.alerts import Standing, Wishes, warnings


class Alerts:
    """`default` holds for accounts that said nothing."""

    def __init__(self, pool: Pool, notices: Notices, audit_log: AuditLog, default: Wishes) -> None:
        self._pool = pool
        self._notices = notices
        self._audit_log = audit_log
        self._default = default
        self._sql = load_queries("alerts")

    async def wishes(self, account_id: str) -> Wishes:
        with outages():
            row = await self._pool.fetchrow(self._sql["wishes"], account_id)
        return self._wishes(row)

    async def set(self, account_id: str, signature: Signature, below: int | None, days: int | None) -> Wishes:
        """Warn of a balance below so many µcr, or that lasts less than so many days; None: as it was."""
        signature = signature.checked()
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                before = self._wishes(await connection.fetchrow(self._sql["wishes_to_change"], account_id))
                after = Wishes(before.below if below is None else below, before.days if days is None else days)
                await connection.execute(self._sql["set"], account_id, after.below, after.days)
                await self._audit_log.append(
                    connection, signature, "alerts.set", account_id, before=before, after=after
                )
        return after

    def _wishes(self, row: "asyncpg.Record | None") -> Wishes:
        return self._default if row is None or row["below"] is None else Wishes(row["below"], row["days"])

    async def warn(self, account_ids: frozenset[str]) -> int:
        """Raise the warnings that are due to these accounts; returns how many are news.

        New credit, or another wish, makes the next warning news, however soon it comes.
        """
        news = 0
        with outages():
            rows = await self._pool.fetch(
                self._sql["standings"], list(account_ids), self._default.below, self._default.days
            )
        for row in rows:
            wishes = Wishes(row["below"], row["days"])
            standing = Standing(row["available"], row["days_sum"], row["days_known"])
            about = f"{wishes.below}/{wishes.days}/{row['credit_seq']}"
            for kind, fields in warnings(wishes, standing):
                news += await self._notices.tell(kind, str(row["id"]), fields, subject=about)
        return news
