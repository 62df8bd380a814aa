"""Whom notices reach: an account's targets and the operators', each change in the audit log, no secret ever in it."""

from datetime import datetime

import msgspec

from gateway.adapters.postgres.audit_log import AuditLog, Signature
from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.adapters.postgres.notices import NoticeError
from gateway.core.ids import uuid_of


class Target(msgspec.Struct, frozen=True):
    """Whom notices reach, as listings show it: never a secret."""

    id: str
    account: str | None
    kind: str
    shown: str
    created_at: datetime


class NoticeTargets:
    def __init__(self, pool: Pool, audit_log: AuditLog) -> None:
        self._pool = pool
        self._audit_log = audit_log
        self._sql = load_queries("notice_targets")

    async def add(
        self, account_id: str | None, kind: str, url: str, signature: Signature, *, secret: str, shown: str
    ) -> str:
        """Have notices of the account (None: the operators') reach `url`; returns the target's id."""
        signature = signature.checked()
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                target_id = str(await connection.fetchval(self._sql["add"], account_id, kind, url, secret, shown))
                after = {"account": account_id, "kind": kind, "url": shown}
                await self._audit_log.append(
                    connection, signature, "notice_target.add", target_id, before=None, after=after
                )
        return target_id

    async def listing(self, account_id: str | None = None) -> list[Target]:
        """The targets of an account, or all."""
        with outages():
            rows = await self._pool.fetch(self._sql["listing"], account_id)
        return [Target(str(r["id"]), r["account"], r["kind"], r["shown"], r["created_at"]) for r in rows]

    async def remove(self, target_id: str, signature: Signature) -> None:
        """Remove a target and its secrets; raises `NoticeError` if there is none."""
        signature = signature.checked()
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                row = await connection.fetchrow(self._sql["remove"], uuid_of(target_id))
                if row is None:
                    raise NoticeError(f"There is no target {target_id!r}; `tollgate notices targets list` shows them.")
                account_id = None if row["account_id"] is None else str(row["account_id"])
                before = {"account": account_id, "kind": row["kind"], "url": row["shown"]}
                await self._audit_log.append(
                    connection, signature, "notice_target.remove", str(row["id"]), before=before, after=None
                )
