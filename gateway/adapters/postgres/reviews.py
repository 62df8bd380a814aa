"""Reviews: what keeps an account, one member or one key from being served until an operator has looked.

Gateways follow within a second; calls that run are left to finish. Opening tells the owner and the operators, in the
same transaction; releasing is audited, too.
"""

from datetime import datetime
from typing import Any

import msgspec

from gateway.adapters.postgres.audit_log import TOLLGATE, AuditLog, Signature
from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.adapters.postgres.notices import Notices
from gateway.core.guard.anomaly import Subject, Verdict
from gateway.core.guard.notices import Kind


class ReviewError(Exception):
    """The operation on a review was refused. The message says why."""


class Review(msgspec.Struct, frozen=True):
    """A review as operators see it. `cause` is Stripe's id, or begins with "unusual:"."""

    reference: str
    cause: str
    account_id: str
    account: str
    subject: str
    key_id: str | None
    reason: str
    figures: dict[str, Any]
    opened_at: datetime
    closed_at: datetime | None
    closed_by: str
    close_reason: str
    status: str  # of the account, now


class Reviews:
    def __init__(self, pool: Pool, notices: Notices, audit_log: AuditLog) -> None:
        self._pool = pool
        self._notices = notices
        self._audit_log = audit_log
        self._sql = load_queries("reviews")

    async def open(self, subject: Subject, verdict: Verdict) -> str | None:
        """Put it in review; returns the reference, or None if it is already."""
        figures = msgspec.json.encode(verdict).decode()
        row = (subject.account_id, subject.member_id, subject.key_id, verdict.text(), figures)
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["lock_account"], subject.account_id)
                reference: str | None = await connection.fetchval(self._sql["open"], *row)
                if reference is not None:
                    await self._tell(connection, subject, verdict, reference)
        return reference

    async def count_open(self) -> int:
        with outages():
            counted: int = await self._pool.fetchval(self._sql["count_open"])
        return counted

    async def mention(self, subject: Subject, verdict: Verdict) -> bool:
        """Tell operators of unusual spending and stop nobody; returns whether it is news."""
        with outages():
            async with self._pool.acquire() as connection:
                who = await self._name(connection, subject)
                fields = {"subject": who, "rule": verdict.rule.value, "figures": verdict.text()}
                about = subject.key_id or subject.member_id or ""
                return await self._notices.raise_(connection, Kind.UNUSUAL, subject.account_id, fields, subject=about)

    async def _tell(self, connection: Connection, subject: Subject, verdict: Verdict, reference: str) -> None:
        who = await self._name(connection, subject)
        fields = {"reference": reference, "subject": who, "rule": verdict.rule.value, "figures": verdict.text()}
        await self._notices.raise_(connection, Kind.IN_REVIEW, subject.account_id, fields)
        opened = {"review": "open", "subject": who, "account_id": subject.account_id}
        await self._audit_log.append(
            connection,
            Signature(TOLLGATE, verdict.text()),
            "open review",
            f"review {reference}",
            before=None,
            after=opened,
        )

    async def _name(self, connection: Connection, subject: Subject) -> str:
        if subject.member_id is None and subject.key_id is None:
            return WHOLE_ACCOUNT
        named = await connection.fetchrow(self._sql["name_of"], subject.member_id, subject.key_id)
        assert named is not None  # it selects no table
        return _named(None if subject.key_id else named["member"], named["key"])

    async def listing(self, *, closed_too: bool = False, count: int) -> list[Review]:
        """The newest reviews; those that are over only if they are asked for."""
        with outages():
            rows = await self._pool.fetch(f"{self._sql['find']} {self._sql['newest']}", closed_too, count)
        return [_review(row) for row in rows]

    async def find(self, reference: str) -> Review:
        """Raises `ReviewError` if there is none."""
        with outages():
            row = await self._pool.fetchrow(f"{self._sql['find']} {self._sql['by_reference']}", reference)
        if row is None:
            raise ReviewError(f"There is no review {reference!r}; `tollgate reviews list` shows them.")
        return _review(row)

    async def release(self, reference: str, signature: Signature) -> Review:
        """End a review; raises `ReviewError`. The account is served again once nothing else keeps it from that."""
        signature = signature.checked()
        before = await self.find(reference)
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["lock_account"], before.account_id)
                row = await connection.fetchrow(self._sql["close"], reference, signature.author, signature.reason)
                if row is None:
                    raise ReviewError(f"Review {reference} is over already.")
                if row["took_status"]:
                    await connection.execute(self._sql["serve"], row["account_id"])
                fields = {"reference": reference, "subject": before.subject, "reason": signature.reason}
                await self._notices.raise_(connection, Kind.RELEASED, before.account_id, fields)
                states = ({"review": "open"}, {"review": "released"})
                await self._audit_log.append(
                    connection, signature, "release review", f"review {reference}", before=states[0], after=states[1]
                )
        return await self.find(reference)


WHOLE_ACCOUNT = "the account"


def _named(member: str | None, key: str | None) -> str:
    if key is not None:
        return f"key {key}…"
    return WHOLE_ACCOUNT if member is None else f"member {member}"


def _review(row: Any) -> Review:
    return Review(
        reference=row["reference"],
        cause=row["cause"],
        account_id=str(row["account_id"]),
        account=row["account"],
        subject=_named(row["member"], row["key"]),
        key_id=row["key_id"],
        reason=row["reason"],
        figures=msgspec.json.decode(row["figures"]),
        opened_at=row["opened_at"],
        closed_at=row["closed_at"],
        closed_by=row["closed_by"],
        close_reason=row["close_reason"],
        status=row["status"],
    )
