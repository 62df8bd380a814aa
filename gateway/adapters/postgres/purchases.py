"""Purchases in Postgres: what was sold, and the one transaction in which a purchase and the ledger change together."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from gateway.adapters.postgres.audit_log import AuditLog, Signature
from gateway.adapters.postgres.database import SYSTEM, Connection, Pool, load_queries, outages
from gateway.adapters.postgres.ledger import Ledger
from gateway.adapters.stripe.objects import Customer
from gateway.core.accounting.ledger import CUSTOMER_BUCKETS, Buckets
from gateway.core.accounting.topups import (
    Freeze,
    Mismatch,
    Order,
    Payment,
    PurchaseState,
    Standing,
    facts_of,
    movements,
    refundable_cents,
    target,
)
from gateway.core.ids import uuid_of
from gateway.core.money import AMOUNT_UCR_MAX, MicroCredits
from gateway.core.shards import shard_of

_POSTED = tuple(Standing.__struct_fields__)


class KeyReused(Exception):
    """The idempotency key stands for another request."""


class TooManyBegun(Exception):
    """The account began as many purchases within an hour as it may."""


class TooMuchHeld(Exception):
    """With this purchase the account would hold more than an account can."""


class Purchase(msgspec.Struct, frozen=True):
    id: str
    account_id: str
    package: str
    order: Order
    saves_card: bool
    state: PurchaseState
    session_id: str
    checkout_url: str
    payment_intent_id: str
    receipt_url: str
    version: int
    posted: Standing
    created_at: datetime
    paid_at: datetime | None


class NewPurchase(msgspec.Struct, frozen=True):
    account_id: str
    idempotency_key: str
    fingerprint: bytes
    package: str
    order: Order
    saves_card: bool


class Unused(msgspec.Struct, frozen=True):
    """What an account has unused, as long as its movements stand at `credit_seq`."""

    credits: MicroCredits
    credit_seq: int


class NewRefund(msgspec.Struct, frozen=True):
    """A refund that is asked for: of `cents`, tax included, or of all that can be refunded."""

    id: str
    idempotency_key: str
    cents: int | None
    unused: Unused
    signature: Signature


class RefusedRefund(msgspec.Struct, frozen=True):
    """A refund that was not made and never will be: its credits are given back. `answer` says why."""

    id: str
    answer: str


class AskedRefund(msgspec.Struct, frozen=True):
    """A refund of ours, as far as we know of it."""

    id: str
    purchase_id: str
    cents: int
    state: str
    stripe_id: str
    answer: str
    payment_intent_id: str
    changed_at: datetime


class AccountMoved(Exception):
    """What is unused must be read again."""

    def __init__(self) -> None:
        super().__init__("the account's credit keeps moving; try again")


class RefundTooLarge(Exception):
    """Less than that can be refunded of this purchase."""

    def __init__(self, most_cents: int) -> None:
        self.most_cents = most_cents
        super().__init__(
            f"at most ${most_cents // 100}.{most_cents % 100:02d} of this purchase can be refunded"
            if most_cents
            else "nothing of this purchase is unused"
        )


class Purchases:
    def __init__(
        self,
        pool: Pool,
        ledger: Ledger,
        audit_log: AuditLog,
        *,
        freeze: Freeze,
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._audit_log = audit_log
        self._freeze = freeze
        self._new_id = new_id
        self._now_ms = now_ms
        self._sql = load_queries("purchases")
        self._ledger_sql = load_queries("ledger")

    async def begin(self, new: NewPurchase, *, per_hour_max: int) -> Purchase:
        """Write the purchase down, or find the one that this key stands for already.

        Raises `KeyReused`, `TooManyBegun` and `TooMuchHeld`.
        """
        order = new.order
        row = (new.package, order.amount_cents, order.currency, order.bonus, order.is_live, new.saves_card)
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["one_at_a_time"], new.account_id)
                found = await connection.fetchrow(self._sql["by_key"], new.account_id, new.idempotency_key)
                if found is None:
                    if (await self._buckets(connection, new.account_id)).total + order.granted > AMOUNT_UCR_MAX:
                        raise TooMuchHeld
                    named = (self._new_id(), new.account_id, new.idempotency_key, new.fingerprint)
                    found = await connection.fetchrow(self._sql["begin"], *named, *row, per_hour_max)
        if found is None:
            raise TooManyBegun
        if found["fingerprint"] != new.fingerprint:
            raise KeyReused
        return _purchase(found)

    async def find(self, purchase_id: str) -> Purchase | None:
        return await self._one("find", purchase_id) if _is_uuid(purchase_id) else None

    async def of_payment(self, intent_id: str) -> Purchase | None:
        return await self._one("of_payment", intent_id)

    async def _one(self, query: str, key: str) -> Purchase | None:
        with outages():
            row = await self._pool.fetchrow(self._sql[query], key)
        return None if row is None else _purchase(row)

    async def listing(
        self, account_id: str | None, count: int, after: tuple[datetime, str] | None = None
    ) -> list[Purchase]:
        """The newest purchases of an account, or of all; those that are older than the one `after` names."""
        place = (None, None) if after is None else (after[0], uuid_of(after[1]))
        with outages():
            rows = await self._pool.fetch(self._sql["listing"], account_id, count, *place)
        return [_purchase(row) for row in rows]

    async def opened(self, purchase_id: str, session_id: str, url: str) -> None:
        with outages():
            await self._pool.execute(self._sql["opened"], purchase_id, session_id, url)

    async def begin_reading(self) -> int:
        """A number for what is about to be read from Stripe: higher than of every reading that began before."""
        with outages():
            reading: int = await self._pool.fetchval(self._sql["begin_reading"])
        return reading

    async def set_state(self, purchase_id: str, state: PurchaseState, reading: int) -> None:
        """Note where an unpaid purchase is; of a paid one nothing changes, nor by a reading that comes late."""
        with outages():
            await self._pool.execute(self._sql["set_state"], purchase_id, state.value, reading)

    async def post(
        self,
        bought: Purchase,
        payment: Payment,
        reading: int,
        tax_cents: int,
        decided: NewRefund | RefusedRefund | None = None,
    ) -> bool:
        """Bring the ledger to where `payment`, of this `reading`, says it must be; all of it in one transaction.

        What was `decided` of a refund is written down and posted with it. A new one is so before Stripe is asked: its
        credits cannot be spent meanwhile; and no crash comes between a refusal and giving them back.
        Returns False, and does nothing, when a reading that began later is posted: then `payment` may be older than
        that, and must be read again.
        Raises `Mismatch`, `RefundTooLarge` and `AccountMoved`.
        """
        shard = shard_of(bought.account_id)
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.fetch(self._ledger_sql["lock_shards"], [shard])
                locked = _purchase(await connection.fetchrow(self._sql["lock"], bought.id))
                if locked.version > reading:
                    return False
                if locked.payment_intent_id not in ("", payment.intent_id):
                    raise Mismatch(f"it was paid by {locked.payment_intent_id} already")
                if isinstance(decided, NewRefund):
                    await self._promise(connection, locked, decided)
                elif decided is not None:
                    await connection.execute(self._sql["refund_refused"], decided.id, decided.answer)
                refunds = [each for each in payment.refunds if _is_uuid(each.ours)]
                shown = [each.ours for each in refunds]
                if shown:
                    at_stripe = [each.id for each in refunds], [each.counts for each in refunds]
                    await connection.execute(self._sql["refunds_shown"], bought.id, shown, *at_stripe)
                promised = await connection.fetchval(self._sql["promised"], bought.id, shown)
                facts = facts_of(
                    payment, locked.order, tax_cents=tax_cents, promised_cents=promised, freeze=self._freeze
                )
                if facts.received:
                    await self._write(connection, locked, payment, target(locked.order, facts))
                await connection.execute(self._sql["read"], bought.id, reading)
        return True

    async def _write(self, connection: Connection, bought: Purchase, payment: Payment, wanted: Standing) -> None:
        shard = shard_of(bought.account_id)
        buckets = await self._buckets(connection, bought.account_id)
        made = movements(bought.order, bought.posted, wanted, buckets)
        if not made.movements and bought.state is PurchaseState.PAID and bought.receipt_url == payment.receipt_url:
            return
        for movement in made.movements:
            # Fees and tax move nothing of the account, and are no line of its ledger.
            concerns_account = any(entry.bucket in CUSTOMER_BUCKETS for entry in movement.entries)
            transfer_id = await self._ledger.write_transfer(
                connection,
                kind=movement.kind,
                shard=shard,
                account_id=bought.account_id if concerns_account else SYSTEM,
                reason=f"purchase {bought.id}",
                event_at_ms=self._now_ms(),
                entries=movement.entries,
            )
            await connection.execute(self._sql["link"], transfer_id, bought.id)
        posted = [getattr(made.standing, name) for name in _POSTED]
        await connection.execute(self._sql["posted"], bought.id, payment.intent_id, payment.receipt_url, *posted)
        moved = made.buckets.total - buckets.total
        if moved:
            await connection.fetchval(self._ledger_sql["credit"], bought.account_id, moved)

    async def _promise(self, connection: Connection, bought: Purchase, new: NewRefund) -> None:
        if await connection.fetchrow(self._sql["refund_by_key"], bought.id, new.idempotency_key) is not None:
            return  # somebody who asked for the same was faster
        if await connection.fetchval(self._sql["credit_seq"], bought.account_id) != new.unused.credit_seq:
            raise AccountMoved
        buckets = await self._buckets(connection, bought.account_id)
        most = refundable_cents(bought.order, bought.posted, new.unused.credits, buckets)
        cents = most if new.cents is None else new.cents
        if cents > most or most == 0:
            raise RefundTooLarge(most)
        named = (new.id, bought.id, new.idempotency_key)
        await connection.execute(self._sql["begin_refund"], *named, cents, new.signature.reason)
        wanted = {"refund": new.id, "cents": cents, "key": new.idempotency_key}
        await self._audit_log.append(connection, new.signature, "refund.create", bought.id, before=None, after=wanted)

    async def _buckets(self, connection: Connection, account_id: str) -> Buckets:
        row = await connection.fetchrow(self._ledger_sql["buckets"], [account_id])
        assert row is not None, "an account has no balances"
        return Buckets(row["promo"], row["paid"], row["debt"])

    async def refund_by_key(self, purchase_id: str, key: str) -> AskedRefund | None:
        with outages():
            row = await self._pool.fetchrow(self._sql["refund_by_key"], purchase_id, key)
        return None if row is None else _refund(row)

    async def refunds_waiting(self, older_than_s: float, *, is_live: bool) -> list[AskedRefund]:
        """Refunds, in live or in test mode, of which we do not know what Stripe made of them."""
        with outages():
            rows = await self._pool.fetch(self._sql["refunds_requested"], timedelta(seconds=older_than_s), is_live)
        return [_refund(row) for row in rows]

    async def claim_refund(self, asked: AskedRefund, lease_s: float) -> bool:
        """Whether the caller alone may ask Stripe for it now, or give it up; nobody else may for so long."""
        known = (asked.id, asked.changed_at, timedelta(seconds=lease_s))
        with outages():
            return await self._pool.fetchval(self._sql["claim_refund"], *known) is not None

    async def postpone_refund(self, asked: AskedRefund) -> None:
        """Have others looked at before it."""
        with outages():
            await self._pool.execute(self._sql["postpone_refund"], asked.id)

    async def customer(self, account_id: str) -> str | None:
        """The account's customer at Stripe, if there is one."""
        with outages():
            found: str | None = await self._pool.fetchval(self._sql["customer"], account_id)
        return found

    async def keep_customer(self, account_id: str, stripe_id: str) -> None:
        with outages():
            await self._pool.execute(self._sql["keep_customer"], account_id, stripe_id)

    async def customer_changed(self, found: Customer, reading: int) -> None:
        """Keep what Stripe knows of a customer; a reading that comes late changes nothing."""
        known = (found.id, found.is_deleted, found.card_id, found.card, found.tax_ids)
        with outages():
            await self._pool.execute(self._sql["customer_changed"], *known, reading)


def _purchase(row: Any) -> Purchase:
    return Purchase(
        id=str(row["id"]),
        account_id=str(row["account_id"]),
        package=row["package"],
        order=Order(row["amount_cents"], row["currency"], row["is_live"], row["bonus"]),
        saves_card=row["saves_card"],
        state=PurchaseState(row["state"]),
        session_id=row["session_id"] or "",
        checkout_url=row["checkout_url"],
        payment_intent_id=row["payment_intent_id"] or "",
        receipt_url=row["receipt_url"],
        version=row["version"],
        posted=Standing(*(row[f"posted_{name}"] for name in _POSTED)),
        created_at=row["created_at"],
        paid_at=row["paid_at"],
    )


def _refund(row: Any) -> AskedRefund:
    return AskedRefund(
        str(row["id"]),
        str(row["purchase_id"]),
        row["cents"],
        row["state"],
        row["stripe_id"] or "",
        row["answer"],
        row["payment_intent_id"] or "",
        row["changed_at"],
    )


def _is_uuid(text: str) -> bool:
    """Whether it is one as we write it: Python reads more forms than PostgreSQL."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
