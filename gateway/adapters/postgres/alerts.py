"""Alerts: when accounts want to be warned of a low balance, and raising the warnings that are due."""

from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.adapters.postgres.notices import Notices
from gateway.core.guard.alerts import Standing, Wishes, warnings


class Alerts:
    """`default` holds for accounts that said nothing."""

    def __init__(self, pool: Pool, notices: Notices, default: Wishes) -> None:
        self._pool = pool
        self._notices = notices
        self._default = default
        self._sql = load_queries("alerts")

    async def wishes(self, account_id: str) -> Wishes:
        with outages():
            row = await self._pool.fetchrow(self._sql["wishes"], account_id)
        return self._default if row is None else Wishes(row["below"], row["days"])

    async def set(self, account_id: str, wishes: Wishes) -> None:
        with outages():
            await self._pool.execute(self._sql["set"], account_id, wishes.below, wishes.days)

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
