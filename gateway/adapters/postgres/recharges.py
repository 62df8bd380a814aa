"""Automatic recharge in Postgres: what an account agreed to, and each attempt, written down before Stripe is asked."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from gateway.adapters.postgres.audit_log import AuditLog, Signature
from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.adapters.postgres.notices import Notices
from gateway.core.accounting.recharge import DECLINES_A_DAY_MAX, Pause, Terms, after_decline
from gateway.core.accounting.topups import UCR_PER_CENT, PurchaseState
from gateway.core.guard.notices import Kind
from gateway.core.money import format_dollars

NO_PURCHASE = "00000000-0000-0000-0000-000000000000"


class Recharge(msgspec.Struct, frozen=True):
    """An account's automatic recharge, as its people see it."""

    is_on: bool
    terms: Terms
    paused: str
    has_card: bool
    card: str
    checkout_url: str  # where the customer can pay, while that is what it waits for


class Watched(msgspec.Struct, frozen=True):
    """An account whose balance is to be looked at."""

    account_id: str
    terms: Terms
    customer_id: str
    card_id: str


class Attempt(msgspec.Struct, frozen=True):
    """A charge that Stripe is asked for, or was."""

    purchase_id: str
    account_id: str
    customer_id: str
    card_id: str
    amount_cents: int
    currency: str
    created_at: datetime


class Tried(msgspec.Struct, frozen=True):
    """An attempt as listings show it."""

    purchase_id: str
    state: str
    answer: str
    amount_cents: int
    created_at: datetime


class Recharges:
    def __init__(self, pool: Pool, notices: Notices, audit_log: AuditLog, *, new_id: Callable[[], str]) -> None:
        self._pool = pool
        self._audit_log = audit_log
        self._notices = notices
        self._new_id = new_id
        self._sql = load_queries("recharges")

    async def find(self, account_id: str) -> Recharge | None:
        with outages():
            row = await self._pool.fetchrow(self._sql["find"], account_id)
        if row is None:
            return None
        offers = row["paused"] and row["checkout_state"] in ("created", "open")
        return Recharge(
            row["is_on"],
            _terms(row),
            row["paused"],
            row["card_id"] != "",
            row["card"] or "",
            row["checkout_url"] if offers else "",
        )

    async def set(self, account_id: str, terms: Terms, signature: Signature) -> None:
        """Turn it on, with these terms; what was paused starts anew. Who agreed to them is in the audit log."""
        signature = signature.checked()
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                before = await self._agreed_so_far(connection, account_id)
                row = (account_id, True, terms.threshold, terms.amount_cents, terms.month_cents_max)
                await connection.execute(self._sql["set"], *row)
                await self._audit_log.append(
                    connection, signature, "recharge.set", account_id, before=before, after=terms
                )

    async def turn_off(self, account_id: str, signature: Signature) -> None:
        signature = signature.checked()
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                before = await self._agreed_so_far(connection, account_id)
                if before is None:
                    return
                await connection.execute(self._sql["turn_off"], account_id)
                await self._audit_log.append(
                    connection, signature, "recharge.off", account_id, before=before, after=None
                )

    async def _agreed_so_far(self, connection: Connection, account_id: str) -> Terms | None:
        row = await connection.fetchrow(self._sql["lock"], account_id)
        return _terms(row) if row is not None and row["is_on"] else None

    async def attempts(self, account_id: str, count: int) -> list[Tried]:
        """The newest attempts."""
        with outages():
            rows = await self._pool.fetch(self._sql["attempts"], account_id, count)
        return [
            Tried(str(row["purchase_id"]), row["state"], row["answer"], row["amount_cents"], row["created_at"])
            for row in rows
        ]

    async def watched(self) -> list[Watched]:
        """Accounts that may be charged, if they need it."""
        with outages():
            rows = await self._pool.fetch(self._sql["watched"], DECLINES_A_DAY_MAX)
        return [_watched(row) for row in rows]

    async def agreed(self, attempt: Attempt) -> Watched | None:
        """The terms of an attempt, while they are still what its account agrees to."""
        with outages():
            row = await self._pool.fetchrow(self._sql["agreed"], attempt.purchase_id)
        return None if row is None else _watched(row)

    async def begin(self, watched: Watched, currency: str, *, is_live: bool) -> Attempt | None:
        """Write an attempt down; None if the account has one open already, whoever began it."""
        purchase_id = self._new_id()
        cents = watched.terms.amount_cents
        row = (purchase_id, watched.account_id, watched.customer_id, watched.card_id)
        try:
            with outages():
                async with self._pool.acquire() as connection, connection.transaction():
                    await connection.execute(
                        self._sql["begin_purchase"], purchase_id, watched.account_id, cents, currency, is_live
                    )
                    await connection.execute(self._sql["begin"], *row)
        except asyncpg.UniqueViolationError:
            return None
        return await self.attempt(purchase_id)

    async def attempt(self, purchase_id: str) -> Attempt:
        with outages():
            row = await self._pool.fetchrow(self._sql["attempt"], purchase_id)
        assert row is not None, "an attempt has vanished"
        return Attempt(
            str(row["purchase_id"]),
            str(row["account_id"]),
            row["customer_id"],
            row["card_id"],
            row["amount_cents"],
            row["currency"],
            row["created_at"],
        )

    async def coming(self, account_id: str) -> int:
        """µcr on their way into the balance that admission sees. Read before that balance, or something is missed."""
        with outages():
            row = await self._pool.fetchrow(self._sql["coming"], account_id)
        assert row is not None
        return int(row["queued"]) + int(row["processing_cents"]) * UCR_PER_CENT

    async def month_cents(self, account_id: str, *, without: str = NO_PURCHASE) -> int:
        """What was charged, or is being charged, this month."""
        with outages():
            cents: int = await self._pool.fetchval(self._sql["month_cents"], account_id, without)
        return cents

    async def drop(self, attempt: Attempt, why: str) -> None:
        """Stripe was not asked, and will not be."""
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["drop"], attempt.purchase_id, why)
                await self._close_purchase(connection, attempt, PurchaseState.EXPIRED)

    async def close_paid(self) -> int:
        """End the attempts that were paid, and resume what a customer paid for; returns how many ended."""
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                rows = await connection.fetch(self._sql["close_paid"])
                if rows:
                    await connection.execute(self._sql["forgive"], [row["account_id"] for row in rows])
                await connection.execute(self._sql["resume"])
        return len(rows)

    async def unsure(self, older_than_s: float) -> list[Attempt]:
        """Open attempts that nobody has looked at for so long: from now on this worker does."""
        return await self._take("unsure", older_than_s)

    async def unoffered(self, older_than_s: float) -> list[Attempt]:
        """Attempts that paused it for want of the customer, who was not given a page in so long."""
        return await self._take("unoffered", older_than_s)

    async def _take(self, query: str, older_than_s: float) -> list[Attempt]:
        with outages():
            rows = await self._pool.fetch(self._sql[query], timedelta(seconds=older_than_s))
        return [await self.attempt(str(row["purchase_id"])) for row in rows]

    async def wait(self, account_id: str, how_long: timedelta) -> None:
        """Do not look at the account for so long, unless its terms are set anew."""
        await self._execute("wait", account_id, how_long)

    async def declined(self, attempt: Attempt, code: str) -> Pause | None:
        """Stripe has decided: wait or pause, and tell. Returns the pause, if this decline brought one.

        Of a pause that only the customer can end they are told with the page to do it on, by `offer`.
        """
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                if await connection.fetchval(self._sql["declined"], attempt.purchase_id, code) is None:
                    return None  # somebody was faster
                await self._close_purchase(connection, attempt, PurchaseState.FAILED)
                declines = await connection.fetchval(self._sql["count_decline"], attempt.account_id)
                follows = after_decline(code, declines)
                if not isinstance(follows, Pause):
                    await connection.execute(self._sql["wait"], attempt.account_id, follows)
                    told = {"amount": format_dollars(attempt.amount_cents), "reason": code}
                    await self._notices.raise_(connection, Kind.PAYMENT_FAILED, attempt.account_id, told)
                    return None
                await connection.execute(self._sql["pause"], attempt.account_id, follows.value)
                if follows is Pause.DECLINED:
                    told = {"reason": code, "remedy": "Check the card, then turn it on again."}
                    await self._notices.raise_(connection, Kind.RECHARGE_PAUSED, attempt.account_id, told)
        return follows

    async def offer(self, account_id: str, purchase_id: str, url: str) -> None:
        """Only the customer can pay: tell them of the page of this purchase, once."""
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                if await connection.fetchval(self._sql["offer"], account_id, purchase_id) is None:
                    return
                told = {"reason": "the bank wants the cardholder", "remedy": f"Pay here, and it goes on: {url}"}
                await self._notices.raise_(connection, Kind.RECHARGE_PAUSED, account_id, told)

    async def _close_purchase(self, connection: Connection, attempt: Attempt, state: PurchaseState) -> None:
        await connection.execute(self._sql["close_purchase"], attempt.purchase_id, state.value)

    async def _execute(self, query: str, *arguments: Any) -> None:
        with outages():
            await self._pool.execute(self._sql[query], *arguments)


def _watched(row: Any) -> Watched:
    return Watched(str(row["account_id"]), _terms(row), row["customer_id"], row["card_id"])


def _terms(row: Any) -> Terms:
    return Terms(row["threshold"], row["amount_cents"], row["month_cents_max"])
