"""Notices in Postgres: raised within the transaction of what they tell of, once in their window, kept with their log.

A notice that was raised in a transaction that fails was never raised. Nothing here sends; the notifier does.
"""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.core.guard.notices import Fields, Kind, Templates, check_fields
from gateway.core.ids import uuid_of


class Due(msgspec.Struct, frozen=True):
    """A delivery to be made now; `attempts` counts this one."""

    id: int
    attempts: int
    notice_id: str
    kind: str  # perhaps of another version of this program
    account_id: str | None
    account: str
    fields: dict[str, str | int]
    created_at: datetime
    target_kind: str
    url: str
    secret: str
    is_wanted: bool


class Listed(msgspec.Struct, frozen=True):
    """A notice as listings show it, with its deliveries: target, state, attempts, error."""

    id: str
    kind: str
    account: str | None
    fields: dict[str, str | int]
    created_at: datetime
    deliveries: list[dict[str, Any]]


class NoticeError(Exception):
    """The operation on a notice or target was refused. The message says why."""


class Notices:
    def __init__(self, pool: Pool, templates: Templates) -> None:
        self._pool = pool
        self._templates = templates
        self._sql = load_queries("notices")

    async def tell(self, kind: Kind, account_id: str | None, fields: Fields, *, subject: str = "") -> bool:
        """Raise a notice in a transaction of its own; see `raise_`."""
        with outages():
            async with self._pool.acquire() as connection:
                return await self.raise_(connection, kind, account_id, fields, subject=subject)

    async def raise_(
        self, connection: Connection, kind: Kind, account_id: str | None, fields: Fields, *, subject: str = ""
    ) -> bool:
        """Raise a notice with what `connection` is doing; returns whether it is news.

        It is not if the same kind about the same account and `subject` (a cap, a model …) was raised within the kind's
        window. `fields` are exactly those that `core.notices.FIELDS` names; anything else is a bug and a ValueError.
        """
        check_fields(kind, fields)
        template = self._templates.by_kind[kind]
        raised = await connection.fetchval(
            self._sql["raise"],
            kind.value,
            account_id,
            f"{kind}:{account_id or ''}:{subject}",
            float(template.again_s),
            msgspec.json.encode(fields).decode(),
            "account" in template.to,
            "operators" in template.to,
        )
        return raised is not None

    async def test(self, target_id: str, at: str) -> None:
        """Raise a test for one target; raises `NoticeError` if there is none."""
        fields = msgspec.json.encode({"at": at}).decode()
        with outages():
            found = await self._pool.fetchval(self._sql["raise_to"], Kind.TEST.value, uuid_of(target_id), fields)
        if found is None:
            raise NoticeError(f"There is no target {target_id!r}; `tollgate notices targets list` shows them.")

    async def claim(self, count: int, lease_s: float) -> list[Due]:
        """Take up to `count` deliveries that are due; unfinished, they are due again after `lease_s`."""
        with outages():
            rows = await self._pool.fetch(self._sql["claim"], count, timedelta(seconds=lease_s))
        return [
            Due(
                id=row["id"],
                attempts=row["attempts"],
                notice_id=str(row["notice_id"]),
                kind=row["kind"],
                account_id=None if row["account_id"] is None else str(row["account_id"]),
                account=row["account"] or "Tollgate",
                fields=msgspec.json.decode(row["fields"]),
                created_at=row["created_at"],
                target_kind=row["target_kind"],
                url=row["url"],
                secret=row["secret"],
                is_wanted=row["is_wanted"],
            )
            for row in rows
        ]

    async def finish(self, delivery_id: int, state: str, *, error: str, took_ms: int, after_s: float = 0.0) -> None:
        """Write an attempt down, and how the delivery stands: sent, retrying or dead."""
        row = (delivery_id, state, error, took_ms, timedelta(seconds=after_s))
        with outages():
            await self._pool.execute(self._sql["finish"], *row)

    async def forget_quiet(self) -> None:
        """Let go of windows that are long over."""
        with outages():
            await self._pool.execute(self._sql["forget_quiet"])

    async def counts(self) -> dict[str, int]:
        """Deliveries that have not arrived, by state."""
        with outages():
            return {row["state"]: row["deliveries"] for row in await self._pool.fetch(self._sql["counts"])}

    async def listing(self, *, kind: str = "", state: str = "", count: int) -> list[Listed]:
        with outages():
            rows = await self._pool.fetch(self._sql["listing"], kind, state, count)
        return [
            Listed(
                str(row["id"]),
                row["kind"],
                row["account"],
                msgspec.json.decode(row["fields"]),
                row["created_at"],
                msgspec.json.decode(row["states"]),
            )
            for row in rows
        ]

    async def retry(self, notice_id: str = "") -> int:
        """Have what was given up tried again, of one notice or all; returns how many deliveries."""
        wanted = uuid_of(notice_id) if notice_id else None
        if notice_id and wanted is None:
            raise NoticeError(f"{notice_id!r} is not the id of a notice; `tollgate notices list` shows them.")
        with outages():
            status = await self._pool.execute(self._sql["retry"], wanted)
        return int(status.rpartition(" ")[2])
