"""Payouts in Postgres: the transaction in which the ledger and what Stripe brought to the bank change together."""

from collections.abc import Callable

from gateway.adapters.postgres.database import SYSTEM, Pool, load_queries, outages
from gateway.adapters.postgres.ledger import Ledger
from gateway.adapters.postgres.provider_costs import SYSTEM_SHARD
from gateway.core.adjustments import entries_for_payout
from gateway.core.ledger import TransferKind
from gateway.core.payouts import Payout, target


class Payouts:
    def __init__(self, pool: Pool, ledger: Ledger, *, now_ms: Callable[[], int]) -> None:
        self._pool = pool
        self._ledger = ledger
        self._now_ms = now_ms
        self._sql = load_queries("payouts")
        self._ledger_sql = load_queries("ledger")

    async def post(self, payout: Payout) -> None:
        """Bring the ledger to where the payout says it must be. Raises `Mismatch` for another currency than ours."""
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.fetch(self._ledger_sql["lock_shards"], [SYSTEM_SHARD])
                await connection.execute(self._sql["begin"], payout.id, payout.amount_cents, payout.status)
                row = await connection.fetchrow(self._sql["lock"], payout.id)
                assert row is not None, "a payout has vanished"
                wanted = target(payout, row["status"])
                if moved := wanted - row["posted"]:
                    await self._ledger.write_transfer(
                        connection,
                        kind=TransferKind.PAYOUT,
                        shard=SYSTEM_SHARD,
                        account_id=SYSTEM,
                        reason=f"payout {payout.id}",
                        event_at_ms=self._now_ms(),
                        entries=entries_for_payout(moved),
                    )
                await connection.execute(self._sql["posted"], payout.id, payout.status, wanted)
