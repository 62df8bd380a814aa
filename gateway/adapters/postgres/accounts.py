"""Accounts and grants: what an operator does, each in one SQL transaction.

A grant is in the ledger when `grant` returns; Redis learns of it through the credit outbox.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from gateway.adapters.postgres.audit_log import BY_TOLLGATE, REASON_LENGTH_MAX, TOLLGATE, AuditLog, Signature
from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.adapters.postgres.ledger import Ledger
from gateway.core.accounting.ledger import Buckets, TransferKind, entries_for_grant
from gateway.core.ids import uuid_of
from gateway.core.money import AMOUNT_UCR_MAX, MicroCredits, format_credits
from gateway.core.pricing.rates import RateCard
from gateway.core.shards import shard_of

NAME_LENGTH_MAX = 200


class AccountError(Exception):
    """The operation on an account or key was refused. The message says why and what would be right."""


class NoSuchAccount(AccountError):
    """There is no account of this name or id."""


class Account(msgspec.Struct, frozen=True):
    id: str
    name: str
    status: str
    on_disconnect: str
    credit_seq: int
    created_at: datetime
    plan: str
    priority: str
    time_zone: str


class LedgerLine(msgspec.Struct, frozen=True):
    """One transfer as its account reads it."""

    id: str
    kind: str
    amount: MicroCredits
    request_id: str | None
    reason: str
    model: str | None
    outcome: str | None
    rate_version: str | None
    event_at: datetime
    recorded_at: datetime


class Accounts:
    def __init__(
        self,
        pool: Pool,
        ledger: Ledger,
        audit_log: AuditLog,
        *,
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._audit_log = audit_log
        self._new_id = new_id
        self._now_ms = now_ms
        self._sql = load_queries("accounts")
        self._ledger_sql = load_queries("ledger")

    async def create(self, name: str, by: Signature = BY_TOLLGATE) -> Account:
        """Create an account; raises `AccountError` if the name is taken or unusable."""
        name = _text(name, "An account's name", NAME_LENGTH_MAX)
        if uuid_of(name) is not None:
            raise AccountError(f"{name!r} is an id, not a name: it could be another account's; choose another name.")
        account_id = self._new_id()
        try:
            with outages():
                async with self._pool.acquire() as connection, connection.transaction():
                    await connection.execute(self._sql["create_account"], account_id, name)
                    await connection.execute(self._sql["create_balances"], account_id, shard_of(account_id))
                    await self._audit_log.append(
                        connection, by.checked(), "account.create", account_id, before=None, after={"name": name}
                    )
        except asyncpg.UniqueViolationError as error:
            raise AccountError(f"There is an account named {name!r} already; choose another name.") from error
        return await self.find(account_id)

    async def find(self, name_or_id: str) -> Account:
        """Return the account of this id or name; raises `NoSuchAccount` if there is none."""
        row = None
        if "\0" not in name_or_id:
            with outages():
                row = await self._pool.fetchrow(self._sql["find_account"], name_or_id, uuid_of(name_or_id))
        if row is None:
            raise NoSuchAccount(f"There is no account {name_or_id!r}; `tollgate accounts list` shows them.")
        return Account(
            str(row["id"]),
            row["name"],
            row["status"],
            row["on_disconnect"],
            row["credit_seq"],
            row["created_at"],
            row["plan"],
            row["priority"],
            row["time_zone"],
        )

    async def balance(self, account_id: str) -> Buckets:
        """What the ledger says the account has, in µcr."""
        with outages():
            row = await self._pool.fetchrow(self._ledger_sql["buckets"], [account_id])
        if row is None:
            raise AccountError(f"There is no account {account_id!r}.")
        return Buckets(row["promo"], row["paid"], row["debt"])

    async def lines(self, account_id: str, count: int) -> list[LedgerLine]:
        """The newest `count` ledger lines of an account, newest first."""
        with outages():
            rows = await self._pool.fetch(self._sql["ledger_lines"], account_id, count)
        return [line_of(row) for row in rows]

    async def grant(self, account_id: str, amount: MicroCredits, reason: str, author: str = TOLLGATE) -> int:
        """Give promotional credit; returns the movement's number, which Redis still has to learn of.

        Raises `AccountError` for an amount that is not more than nothing, a balance beyond what can be compared
        exactly, or a missing reason.
        """
        reason = reason_of(reason)
        if amount <= 0:
            raise AccountError("A grant must be more than 0 credits.")
        shard = shard_of(account_id)
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.fetch(self._ledger_sql["lock_shards"], [shard])
                row = await connection.fetchrow(self._ledger_sql["buckets"], [account_id])
                if row is None:
                    raise AccountError(f"There is no account {account_id!r}.")
                buckets = Buckets(row["promo"], row["paid"], row["debt"])
                if buckets.total + amount > AMOUNT_UCR_MAX:
                    most = format_credits(AMOUNT_UCR_MAX)
                    raise AccountError(f"An account can hold at most {most} credits; this grant would pass that.")
                await self._ledger.write_transfer(
                    connection,
                    kind=TransferKind.GRANT,
                    shard=shard,
                    account_id=account_id,
                    reason=reason,
                    event_at_ms=self._now_ms(),
                    entries=entries_for_grant(amount, buckets),
                )
                before, after = (
                    {"balance": format_credits(total)} for total in (buckets.total, buckets.total + amount)
                )
                signature = Signature(author, reason).checked()
                await self._audit_log.append(
                    connection, signature, "account.grant", account_id, before=before, after=after
                )
                credit_seq: int = await connection.fetchval(self._ledger_sql["credit"], account_id, amount)
        return credit_seq

    async def record_card(self, card: RateCard, text: str) -> None:
        """Keep the text of a rate card for ever; raises `AccountError` if its version stands for another text."""
        with outages():
            await self._pool.execute(self._sql["record_card"], card.version, card.hash, card.name, text)
            recorded = await self._pool.fetchval(self._sql["card_hash"], card.version)
        if recorded != card.hash:
            raise AccountError(f"Rate card {card.version} is recorded with another text; give this one another name.")

    async def recorded_cards(self) -> list[tuple[str, str]]:
        """(name, text) of every rate card that was ever used."""
        with outages():
            rows = await self._pool.fetch(self._sql["cards"])
        return [(row["name"], row["text"]) for row in rows]


def reason_of(text: str) -> str:
    """The reason of a movement, as it is kept; raises `AccountError` for none, or an unreadable one."""
    return _text(text, "A reason", REASON_LENGTH_MAX)


def _text(text: str, what: str, length_max: int) -> str:
    stripped = text.strip()
    if not stripped or len(stripped) > length_max or not stripped.isprintable():
        raise AccountError(f"{what} must be 1 to {length_max} printable characters.")
    return stripped


def line_of(row: Any) -> LedgerLine:
    return LedgerLine(
        str(row["id"]),
        row["kind"],
        row["amount"] or 0,
        None if row["request_id"] is None else str(row["request_id"]),
        row["reason"],
        row["model"],
        row["outcome"],
        row["rate_version"],
        row["event_at"],
        row["recorded_at"],
    )
