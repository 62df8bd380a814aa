"""Payouts and Stripe's own fees in Postgres: the transaction in which the ledger and what is known of them change."""

from collections.abc import Callable

from gateway.adapters.postgres.database import SYSTEM, Connection, Pool, load_queries, outages
from gateway.adapters.postgres.ledger import Ledger
from gateway.adapters.postgres.provider_costs import SYSTEM_SHARD
from gateway.core.accounting.adjustments import entries_for_own_fee, entries_for_payout
from gateway.core.accounting.ledger import Entries, TransferKind
from gateway.core.accounting.payouts import OwnFee, Payout, charged, target


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
                    entries = entries_for_payout(moved)
                    await self._write(connection, TransferKind.PAYOUT, f"payout {payout.id}", entries)
                await connection.execute(self._sql["posted"], payout.id, payout.status, wanted)

    async def charge(self, fee: OwnFee) -> bool:
        """Book what Stripe took for itself, once; returns whether it was new. Raises `Mismatch`."""
        amount = charged(fee)
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.fetch(self._ledger_sql["lock_shards"], [SYSTEM_SHARD])
                if await connection.fetchval(self._sql["charge"], fee.id, fee.cents) is None:
                    return False
                await self._write(connection, TransferKind.FEES, f"Stripe {fee.id}", entries_for_own_fee(amount))
        return True

    async def _write(self, connection: Connection, kind: TransferKind, reason: str, entries: Entries) -> None:
        await self._ledger.write_transfer(
            connection,
            kind=kind,
            shard=SYSTEM_SHARD,
            account_id=SYSTEM,
            reason=reason,
            event_at_ms=self._now_ms(),
            entries=entries,
        )
