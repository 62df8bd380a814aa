"""Credit movements that started in Postgres and are not yet known to be in Redis: the queue, in its order."""

from collections import defaultdict

import msgspec

from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.core.money import MicroCredits


class Movement(msgspec.Struct, frozen=True):
    credit_seq: int
    amount: MicroCredits


class CreditOutbox:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("accounts")

    async def pending(self, limit: int) -> dict[str, list[Movement]]:
        """The oldest movements by account, each account's in order; at most `limit` in all."""
        with outages():
            rows = await self._pool.fetch(self._sql["pending_credits"], limit)
        found: dict[str, list[Movement]] = defaultdict(list)
        for row in rows:
            found[str(row["account_id"])].append(Movement(row["credit_seq"], row["amount"]))
        for movements in found.values():
            movements.sort(key=lambda movement: movement.credit_seq)
        return dict(found)

    async def of_account(self, account_id: str) -> list[Movement]:
        """Every movement of an account that is queued, in order."""
        with outages():
            rows = await self._pool.fetch(self._sql["credits_from"], account_id)
        return [Movement(row["credit_seq"], row["amount"]) for row in rows]

    async def delivered(self, account_id: str, credit_seq: int) -> None:
        """Redis has the account's movements up to this one."""
        with outages():
            await self._pool.execute(self._sql["delivered"], account_id, credit_seq)
