"""What an operator corrects in one account: expiry, write-off, adjustment; each one SQL transaction, with a reason.

It is in the ledger when the method returns; Redis learns of it through the credit outbox, as of a grant.
"""

from collections.abc import Callable

from gateway.adapters.postgres.accounts import AccountError, reason_of
from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.adapters.postgres.ledger import Ledger
from gateway.core.accounting.adjustments import entries_for_adjustment, entries_for_expiry, entries_for_write_off
from gateway.core.accounting.ledger import Buckets, Entries, TransferKind, taken_by
from gateway.core.money import AMOUNT_UCR_MAX, MicroCredits, format_credits
from gateway.core.shards import shard_of

_ENTRIES: dict[TransferKind, Callable[[MicroCredits, Buckets], Entries]] = {
    TransferKind.EXPIRY: entries_for_expiry,
    TransferKind.WRITE_OFF: entries_for_write_off,
    TransferKind.ADJUSTMENT: entries_for_adjustment,
}


class Adjustments:
    def __init__(self, pool: Pool, ledger: Ledger, *, now_ms: Callable[[], int]) -> None:
        self._pool = pool
        self._ledger = ledger
        self._now_ms = now_ms
        self._sql = load_queries("ledger")

    async def post(self, kind: TransferKind, account_id: str, amount: MicroCredits, reason: str) -> Buckets:
        """Post an expiry, a write-off or an adjustment of `amount`; returns what the account then has.

        Raises `AccountError` for what the account's buckets do not allow, or a missing reason.
        """
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                _, after = await self.book(connection, kind, account_id, amount, reason)
        return after

    async def check(self, connection: Connection, kind: TransferKind, account_id: str, amount: MicroCredits) -> None:
        """Raises `AccountError` if it could not be booked now."""
        await self._entries(connection, kind, account_id, amount)

    async def book(
        self, connection: Connection, kind: TransferKind, account_id: str, amount: MicroCredits, reason: str
    ) -> tuple[Buckets, Buckets]:
        """The same within a transaction of the caller's; returns what the account had, and what it then has."""
        reason = reason_of(reason)
        before, entries = await self._entries(connection, kind, account_id, amount)
        await self._ledger.write_transfer(
            connection,
            kind=kind,
            shard=shard_of(account_id),
            account_id=account_id,
            reason=reason,
            event_at_ms=self._now_ms(),
            entries=entries,
        )
        await connection.fetchval(self._sql["credit"], account_id, taken_by(entries).total)
        return before, before.after(entries)

    async def _entries(
        self, connection: Connection, kind: TransferKind, account_id: str, amount: MicroCredits
    ) -> tuple[Buckets, Entries]:
        """What the account has, its shard locked, and what the movement would post."""
        too_much = AccountError(f"An account can hold at most {format_credits(AMOUNT_UCR_MAX)} credits.")
        if abs(amount) > AMOUNT_UCR_MAX:
            raise too_much
        await connection.fetch(self._sql["lock_shards"], [shard_of(account_id)])
        row = await connection.fetchrow(self._sql["buckets"], [account_id])
        if row is None:
            raise AccountError(f"There is no account {account_id!r}.")
        buckets = Buckets(row["promo"], row["paid"], row["debt"])
        try:
            entries = _ENTRIES[kind](amount, buckets)
        except ValueError as error:
            raise AccountError(f"{format_credits(amount)} credits: {error}.") from error
        if buckets.after(entries).total > AMOUNT_UCR_MAX:
            raise too_much
        return buckets, entries
