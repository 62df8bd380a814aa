"""Statements in Postgres: made from the ledger in one snapshot; a closed month is stored once and then only read."""

import hashlib
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import msgspec

from gateway.adapters.postgres.database import SYSTEM, Connection, Pool, load_queries, outages
from gateway.adapters.postgres.provider_costs import CLOSING_TIME
from gateway.core.accounting.statements import Movement, Receipt, Statement, month_bounds
from gateway.core.accounting.topups import UCR_PER_CENT


class NoStatement(Exception):
    """There is no statement of that month."""


class NotYetSealed(Exception):
    """The month is over, but its last movements are not sealed yet."""


class Told(NamedTuple):
    statement: Statement
    hash: str  # of the stored content, in hex; "" while the month is open


class Statements:
    def __init__(self, pool: Pool, *, now: Callable[[], datetime]) -> None:
        self._pool = pool
        self._now = now
        self._sql = load_queries("statements")

    async def tell(self, account_id: str, month: date) -> Told:
        """The statement of a month: stored for ever if it is over, as of now if it is not.

        Raises `NoStatement` for months to come or before the account's first, `NotYetSealed`, `LedgerUnavailable`.
        """
        with outages():
            stored = await self._stored(account_id, month)
            if stored is not None:
                return stored
            now = self._now()
            since, until = month_bounds(month)
            is_closed = now >= until + CLOSING_TIME
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                account = await connection.fetchrow(self._sql["account"], account_id)
                if account is None or account["created_at"] >= until or since > now:
                    raise NoStatement(f"There is no statement of {month:%Y-%m} for this account.")
                made = await self._made(connection, account_id, account, month, is_closed=is_closed)
            if not is_closed:
                return Told(made, "")
            content = msgspec.json.encode(made)
            await self._pool.execute(self._sql["insert"], account_id, month, made.opening, made.closing, content)
            stored = await self._stored(account_id, month)
        assert stored is not None
        return stored

    def is_over(self, month: date) -> bool:
        """Whether nothing more will be recorded in it."""
        _, until = month_bounds(month)
        return self._now() >= until + CLOSING_TIME

    async def unclosed(self, month: date, limit: int, *, after: str = SYSTEM) -> list[str]:
        """Accounts, in the order of their ids, that still want a statement of `month`; none while it is not over."""
        _, until = month_bounds(month)
        if not self.is_over(month):
            return []
        with outages():
            rows = await self._pool.fetch(self._sql["unclosed"], month, until, limit, after)
        return [str(row["id"]) for row in rows]

    async def _stored(self, account_id: str, month: date) -> Told | None:
        row = await self._pool.fetchrow(self._sql["stored"], account_id, month)
        if row is None:
            return None
        assert hashlib.sha256(row["content"]).digest() == row["hash"], "a stored statement was changed"
        return Told(msgspec.json.decode(row["content"], type=Statement), row["hash"].hex())

    async def _made(
        self, connection: Connection, account_id: str, account: Any, month: date, *, is_closed: bool
    ) -> Statement:
        since, until = month_bounds(month)
        seal = await connection.fetchrow(self._sql["newest_seal"])
        last = await connection.fetchval(self._sql["last_ordinal"], account_id, since, until)
        if is_closed and last is not None and (seal is None or seal["ordinal_last"] < last):
            raise NotYetSealed("The month's last movements are not sealed yet; try again in a moment.")
        opening: int = await connection.fetchval(self._sql["opening"], account_id, since, timeout=None)
        moved = await connection.fetch(self._sql["movements"], account_id, since, until, timeout=None)
        bought = await connection.fetch(self._sql["receipts"], account_id, since, until)
        movements = tuple(Movement(row["kind"], row["model"], row["count"], row["amount"]) for row in moved)
        return Statement(
            account_id=account_id,
            account_name=account["name"],
            month=f"{month:%Y-%m}",
            is_closed=is_closed,
            opening=opening,
            movements=movements,
            closing=opening + sum(each.amount for each in movements),
            receipts=tuple(_receipt(row) for row in bought),
            ledger_head="" if seal is None else seal["head"].hex(),
            made_at=self._now().astimezone(UTC),
            tax_ids=account["tax_ids"],
        )


def _receipt(row: Any) -> Receipt:
    tax_cents = row["posted_tax"] // UCR_PER_CENT
    return Receipt(row["at"], str(row["id"]), row["amount_cents"], row["currency"], row["receipt_url"], tax_cents)
