"""What of an account's credit is unused, for certain: only where Redis knows every movement that the ledger has made.

Else what a refund has just taken, and Redis not yet, would be unused still, and be paid back a second time.
"""

from gateway.adapters.postgres.accounts import Accounts
from gateway.adapters.postgres.credit_outbox import CreditOutbox
from gateway.adapters.postgres.purchases import Unused
from gateway.adapters.recovery import Recovery
from gateway.adapters.redis.credits import Credits, CreditsError, ShardCold
from gateway.workers.crediter import Crediter


class MovementsUndelivered(CreditsError):
    """Redis does not know of the account's last movements yet, so what is unused is not known."""


class UnusedCredit:
    def __init__(
        self, accounts: Accounts, outbox: CreditOutbox, crediter: Crediter, credits: Credits, recovery: Recovery
    ) -> None:
        self._accounts = accounts
        self._outbox = outbox
        self._crediter = crediter
        self._credits = credits
        self._recovery = recovery

    async def of(self, account_id: str) -> Unused:
        """What admission and the ledger agree is unused: running calls count, and so does what is not posted yet.

        Below zero, it was spent meanwhile. Raises `CreditsError` and `RedisUnavailable` when it cannot be known now.
        """
        await self._crediter.step()
        credit_seq = (await self._accounts.find(account_id)).credit_seq  # first, so that what moves after it shows
        if await self._outbox.of_account(account_id):
            raise MovementsUndelivered(account_id)
        live = await self._credits.balance(account_id)
        if live is None:
            await self._recovery.load_account(account_id)
            live = await self._credits.balance(account_id)
        if live is None:
            raise ShardCold(account_id)
        ledger = (await self._accounts.balance(account_id)).total
        return Unused(min(ledger, live.available), credit_seq)
