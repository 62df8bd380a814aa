"""Corrections of balances by operators: small ones at once, larger ones when a second person agrees.

Asking, deciding, posting and the lines in the audit log are one SQL transaction each. Redis learns of it as of a grant.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from gateway.adapters.postgres.adjustments import Adjustments
from gateway.adapters.postgres.audit_log import AuditLog, ChangeRefused, Signature
from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.core.accounting.ledger import Buckets, TransferKind
from gateway.core.money import MicroCredits, format_credits


class Correction(msgspec.Struct, frozen=True):
    id: str
    account_id: str
    account: str
    kind: str
    amount: MicroCredits
    reason: str
    author: str
    asked_at: datetime
    state: str  # proposed, posted, rejected
    decided_by: str | None  # nobody: it was within what its author may do alone
    decision_reason: str | None
    decided_at: datetime | None


class Corrections:
    """`alone_ucr_max`: what one operator may correct within a day without a second person."""

    def __init__(
        self,
        pool: Pool,
        adjustments: Adjustments,
        audit_log: AuditLog,
        *,
        alone_ucr_max: MicroCredits,
        new_id: Callable[[], str],
    ) -> None:
        self._pool = pool
        self._adjustments = adjustments
        self._audit_log = audit_log
        self._alone_ucr_max = alone_ucr_max
        self._new_id = new_id
        self._sql = load_queries("corrections")

    async def ask(
        self,
        kind: TransferKind,
        account_id: str,
        amount: MicroCredits,
        signature: Signature,
        correction_id: str | None = None,
    ) -> Correction:
        """Post it, or propose it to a second person. Raises `AccountError` for what the balance does not allow.

        Asked again under the same id, it is told and nothing moves; with other words, `ChangeRefused`.
        """
        signature = signature.checked()
        correction_id = correction_id or self._new_id()
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["lock"])
                known = await connection.fetchrow(f"{self._sql['find']} {self._sql['by_id']}", correction_id)
                if known is not None:
                    return _same(
                        _correction(known), (kind.value, account_id, amount, signature.reason, signature.author)
                    )
                alone: int = await connection.fetchval(self._sql["alone"], signature.author)
                is_small = alone + abs(amount) <= self._alone_ucr_max
                await self._adjustments.check(connection, kind, account_id, amount)
                state = "posted" if is_small else "proposed"
                row = (correction_id, account_id, kind.value, amount, signature.reason, signature.author, state)
                await connection.execute(self._sql["insert"], *row)
                moved = None
                if is_small:
                    moved = await self._adjustments.book(connection, kind, account_id, amount, signature.reason)
                await self._log(connection, signature, state, correction_id, moved)
        return await self.find(correction_id)

    async def approve(self, correction_id: str, signature: Signature) -> Correction:
        """Post a proposal. Raises `ChangeRefused` for one's own, or what is decided already, and `AccountError`."""
        return await self._decide(correction_id, signature, "posted")

    async def reject(self, correction_id: str, signature: Signature) -> Correction:
        """Give a proposal up; its own author may, too."""
        return await self._decide(correction_id, signature, "rejected")

    async def find(self, correction_id: str) -> Correction:
        """Raises `ChangeRefused` if there is none."""
        with outages():
            row = await self._pool.fetchrow(f"{self._sql['find']} {self._sql['by_id']}", _uuid(correction_id))
        if row is None:
            raise ChangeRefused(f"There is no correction {correction_id}.")
        return _correction(row)

    async def listing(self, *, decided_too: bool = False, count: int) -> list[Correction]:
        """The newest; those that are decided only if they are asked for."""
        with outages():
            rows = await self._pool.fetch(f"{self._sql['find']} {self._sql['newest']}", decided_too, count)
        return [_correction(row) for row in rows]

    async def _decide(self, correction_id: str, signature: Signature, state: str) -> Correction:
        signature = signature.checked()
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["lock_one"], _uuid(correction_id))
                row = await connection.fetchrow(f"{self._sql['find']} {self._sql['by_id']}", _uuid(correction_id))
                if row is None:
                    raise ChangeRefused(f"There is no correction {correction_id}.")
                found = _correction(row)
                if found.state != "proposed":
                    raise ChangeRefused(f"Correction {found.id} is {found.state} already.")
                moved = None
                if state == "posted":
                    if found.author.casefold() == signature.author.casefold():
                        raise ChangeRefused("Nobody approves a correction of their own: a second person must.")
                    moved = await self._adjustments.book(
                        connection, TransferKind(found.kind), found.account_id, found.amount, found.reason
                    )
                await connection.execute(self._sql["decide"], found.id, state, signature.author, signature.reason)
                await self._log(connection, signature, state, found.id, moved)
        return await self.find(correction_id)

    async def _log(
        self,
        connection: Connection,
        signature: Signature,
        state: str,
        correction_id: str,
        moved: tuple[Buckets, Buckets] | None,
    ) -> None:
        """`moved`: what the account had and has, if anything moved."""
        row = await connection.fetchrow(f"{self._sql['find']} {self._sql['by_id']}", correction_id)
        assert row is not None  # it was just written
        found = _correction(row)
        after = {
            "account": found.account_id,
            "kind": found.kind,
            "credits": format_credits(found.amount),
            "state": found.state,
        }
        before = None
        if moved is not None:
            before = {"balance": format_credits(moved[0].total)}
            after["balance"] = format_credits(moved[1].total)
        action = {"posted": "correction.post", "proposed": "correction.propose", "rejected": "correction.reject"}[state]
        await self._audit_log.append(connection, signature, action, correction_id, before=before, after=after)


def _same(found: Correction, asked: tuple[str, str, MicroCredits, str, str]) -> Correction:
    if (found.kind, found.account_id, found.amount, found.reason, found.author) != asked:
        raise ChangeRefused(f"The id {found.id} stands for another correction.")
    return found


def _correction(row: Any) -> Correction:
    return Correction(**{**dict(row), "id": str(row["id"]), "account_id": str(row["account_id"])})


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise ChangeRefused(f"{text[:100]!r} is no correction's id; `tollgate corrections list` shows them.") from error
