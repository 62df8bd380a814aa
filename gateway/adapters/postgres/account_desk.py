"""Accounts as operators watch and stop them: who spends most, and out of service or back, signed and logged."""

from datetime import timedelta

import msgspec

from gateway.adapters.postgres.accounts import AccountError
from gateway.adapters.postgres.audit_log import AuditLog, ChangeRefused, Signature
from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.core.money import MicroCredits


class Spender(msgspec.Struct, frozen=True):
    """An account's use within a window."""

    account_id: str
    account: str
    status: str
    spend: MicroCredits
    uncharged: MicroCredits  # what its shadow calls would have cost
    calls: int
    flagged: int  # lines that want a second look


class AccountDesk:
    def __init__(self, pool: Pool, audit_log: AuditLog) -> None:
        self._pool = pool
        self._audit_log = audit_log
        self._sql = load_queries("account_desk")

    async def top(self, window: timedelta, count: int) -> list[Spender]:
        """Those that spent most, the most first."""
        with outages():
            rows = await self._pool.fetch(self._sql["top"], window, count)
        return [
            Spender(
                str(row["id"]),
                row["name"],
                row["status"],
                row["spend"],
                row["uncharged"] or 0,
                row["calls"],
                row["flagged"],
            )
            for row in rows
        ]

    async def set_status(self, account_id: str, status: str, signature: Signature) -> str:
        """Suspend an account or serve it again; returns what it was. Gateways follow within a second.

        An account that a review keeps out of service is served again by releasing that, not here: `ChangeRefused`.
        """
        signature = signature.checked()
        if status not in ("active", "suspended", "in_review"):
            raise ChangeRefused(f"{status!r} is not a status: active, suspended or in_review.")
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                row = await connection.fetchrow(self._sql["lock"], account_id)
                if row is None:
                    raise AccountError(f"There is no account {account_id!r}.")
                if status == "active":
                    reviews = await connection.fetch(self._sql["open_reviews"], account_id)
                    if reviews:
                        reference = reviews[0]["reference"]
                        raise ChangeRefused(
                            f"The account is in review; release it: tollgate reviews release {reference}"
                        )
                before: str = row["status"]
                await connection.execute(self._sql["set_status"], account_id, status)
                states = ({"status": before}, {"status": status})
                await self._audit_log.append(
                    connection, signature, "account.status", account_id, before=states[0], after=states[1]
                )
        return before
