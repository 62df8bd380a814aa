"""What a dispute, a fraud warning or a review of Stripe's does to an account: out of service while one is open.

Operators are told of a dispute and the account of its review, once each, in the transaction that it begins in.
"""

from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.adapters.postgres.notices import Notices
from gateway.adapters.stripe.objects import Cause
from gateway.core.guard.notices import Kind
from gateway.core.money import format_dollars


class PaymentCauses:
    def __init__(self, pool: Pool, notices: Notices) -> None:
        self._pool = pool
        self._notices = notices
        self._sql = load_queries("payment_causes")
        self._reviews_sql = load_queries("reviews")

    async def follow(self, account_id: str, cause: Cause, *, reviews: bool) -> None:
        """Bring the account to where `cause`, a present fact about one of its payments, wants it.

        Without `reviews` the account stays in service. Said again, or said late, it changes nothing.
        """
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["lock"], cause.id)
                if cause.is_open and cause.kind == "dispute":
                    await self._tell_operators(connection, account_id, cause)
                if reviews:
                    await connection.execute(self._reviews_sql["lock_account"], account_id)
                    await (self._open if cause.is_open else self._close)(connection, account_id, cause)

    async def _open(self, connection: Connection, account_id: str, cause: Cause) -> None:
        why = f"{cause.kind} of a payment: {cause.reason}"
        reference = await connection.fetchval(self._sql["open"], cause.id, account_id, why)
        if reference is not None:
            told = {"reference": reference, "amount": format_dollars(cause.cents), "reason": why}
            await self._notices.raise_(connection, Kind.PAYMENT_REVIEW, account_id, told, subject=cause.id)

    async def _close(self, connection: Connection, account_id: str, cause: Cause) -> None:
        took_status = await connection.fetchval(self._sql["close"], cause.id, account_id)
        if took_status:
            await connection.execute(self._sql["release"], account_id)

    async def _tell_operators(self, connection: Connection, account_id: str, cause: Cause) -> None:
        if await connection.fetchval(self._sql["is_told"], Kind.DISPUTE.value, account_id, cause.id):
            return
        told = {"payment": cause.intent_id, "amount": format_dollars(cause.cents), "reason": cause.reason}
        told["reference"] = cause.id
        await self._notices.raise_(connection, Kind.DISPUTE, account_id, told, subject=cause.id)
