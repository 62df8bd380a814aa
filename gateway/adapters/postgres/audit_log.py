"""The audit log: who changed what, why, and how it was before and after. It only grows.

A line is written in the SQL transaction of the change that it tells of, so neither can be without the other.
"""

from datetime import datetime
from typing import Any

import msgspec

from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages

AUTHOR_LENGTH_MAX = 200
REASON_LENGTH_MAX = 1000


class ChangeRefused(Exception):
    """An operator's change cannot be made. The message says why and what would be right."""


class Signature(msgspec.Struct, frozen=True):
    """Who makes a change, and why: both are always told."""

    author: str
    reason: str

    def checked(self) -> "Signature":
        """This, as it is kept; raises `ChangeRefused` for what cannot be read."""
        return Signature(
            _printable(self.author, "An author", AUTHOR_LENGTH_MAX),
            _printable(self.reason, "A reason", REASON_LENGTH_MAX),
        )


TOLLGATE = "tollgate"  # the author of what no person asked for
BY_TOLLGATE = Signature(TOLLGATE, "part of its own work")


class Logged(msgspec.Struct, frozen=True):
    """One line of the log."""

    id: int
    author: str
    action: str
    subject: str
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    at: datetime


class AuditLog:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("audit_log")

    async def append(
        self,
        connection: Connection,
        signature: Signature,
        action: str,
        subject: str,
        *,
        before: object | None,
        after: object | None,
    ) -> None:
        """Tell of a change within its transaction. `before` and `after` are anything that msgspec encodes."""
        states = (None if each is None else msgspec.json.encode(each).decode() for each in (before, after))
        await connection.execute(self._sql["append"], signature.author, action, subject, signature.reason, *states)

    async def page(
        self, *, before_id: int | None = None, subject: str | None = None, author: str | None = None, count: int
    ) -> list[Logged]:
        """The newest `count` lines, or those before `before_id`, the newest first."""
        with outages():
            rows = await self._pool.fetch(self._sql["page"], before_id, subject, author, count)
        return [
            Logged(
                row["id"],
                row["author"],
                row["action"],
                row["subject"],
                row["reason"],
                _state(row["before"]),
                _state(row["after"]),
                row["at"],
            )
            for row in rows
        ]


def _state(text: str | None) -> dict[str, Any] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, Any])


def _printable(text: str, what: str, length_max: int) -> str:
    stripped = text.strip()
    if not stripped or len(stripped) > length_max or not stripped.isprintable():
        raise ChangeRefused(f"{what} must be 1 to {length_max} printable characters.")
    return stripped
