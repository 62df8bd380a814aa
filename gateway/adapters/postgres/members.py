"""Members of an account: invited, changed, removed. An account that has an owner keeps one who is active."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from gateway.adapters.postgres.accounts import AccountError
from gateway.adapters.postgres.audit_log import BY_TOLLGATE, AuditLog, Signature
from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.core.access.roles import Role
from gateway.core.ids import uuid_of

EMAIL_LENGTH_MAX = 254
TEXT_LENGTH_MAX = 200
LISTED_MAX = 10_000
STATUSES = ("active", "suspended", "removed")

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


class MemberRefused(AccountError):
    """What was asked of a member cannot be done; `param` is the field that is wrong, if one is."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class MemberExists(AccountError):
    """The member that was to be added has been added before."""

    def __init__(self, member_id: str) -> None:
        super().__init__(f"The member {member_id} was added before.")
        self.member_id = member_id


class NoSuchMember(AccountError):
    """There is no such member."""


class Member(msgspec.Struct, frozen=True):
    id: str
    account_id: str
    email: str
    name: str
    subject: str | None
    role: Role
    status: str
    created_at: datetime


class MemberChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be another; UNSET stays as it is."""

    email: str | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    subject: str | msgspec.UnsetType | None = msgspec.UNSET
    role: Role | msgspec.UnsetType = msgspec.UNSET
    status: str | msgspec.UnsetType = msgspec.UNSET


class Members:
    def __init__(self, pool: Pool, audit_log: AuditLog, *, new_id: Callable[[], str]) -> None:
        self._pool = pool
        self._audit_log = audit_log
        self._new_id = new_id
        self._sql = load_queries("members")

    async def create(
        self,
        account_id: str,
        email: str,
        role: Role,
        *,
        name: str = "",
        subject: str | None = None,
        member_id: str | None = None,
        by: Signature = BY_TOLLGATE,
    ) -> Member:
        """Raises `MemberRefused`, also for an address or subject that is a member's already.

        Raises `MemberExists` if one was added with this `member_id`.
        """
        email, name, subject = _checked(email, name, subject)
        member_id = member_id or self._new_id()
        try:
            with outages():
                async with self._pool.acquire() as connection, connection.transaction():
                    columns = (member_id, account_id, email, name, subject, role.value)
                    await connection.execute(self._sql["insert"], *columns)
                    made = await self._find(connection, account_id, member_id)
                    await self._log(connection, by, "member.add", None, made)
        except asyncpg.UniqueViolationError as error:
            raise MemberExists(member_id) if await self._is_there(member_id) else _taken(error) from error
        except asyncpg.ForeignKeyViolationError as error:
            raise AccountError(f"There is no account {account_id!r}.") from error
        return made

    async def _is_there(self, member_id: str) -> bool:
        with outages():
            return bool(await self._pool.fetchval(self._sql["is_there"], member_id))

    async def find(self, account_id: str, id_or_email: str) -> Member:
        """Raises `NoSuchMember`."""
        with outages():
            async with self._pool.acquire() as connection:
                return await self._find(connection, account_id, id_or_email)

    async def _find(self, connection: Connection, account_id: str, id_or_email: str) -> Member:
        row = None
        if "\0" not in id_or_email:
            sql = f"{self._sql['shown']}\n{self._sql['one']}"
            row = await connection.fetchrow(sql, account_id, uuid_of(id_or_email), id_or_email)
        if row is None:
            raise NoSuchMember(f"There is no member {id_or_email!r} in this account.")
        return _member(row)

    async def by_subject(self, account_id: str, subject: str) -> Member | None:
        with outages():
            row = await self._pool.fetchrow(f"{self._sql['shown']}\n{self._sql['by_subject']}", account_id, subject)
        return None if row is None else _member(row)

    async def was_removed(self, account_id: str, subject: str, email: str) -> bool:
        """Whether a member of this subject, or of this address and no subject, was removed from the account, ever."""
        with outages():
            return bool(await self._pool.fetchval(self._sql["was_removed"], account_id, subject, email))

    async def listing(
        self, account_id: str, count: int = LISTED_MAX, after: tuple[datetime, str] | None = None
    ) -> list[Member]:
        """An account's members in the order they came, from behind the one of this moment and id."""
        sql = f"{self._sql['shown']}\n{self._sql['of_account']}"
        with outages():
            rows = await self._pool.fetch(sql, account_id, *(after or (None, None)), count)
        return [_member(row) for row in rows]

    async def change(
        self,
        account_id: str,
        id_or_email: str,
        change: MemberChange,
        allowed: Callable[[Member, Member], None] = lambda old, new: None,
        by: Signature = BY_TOLLGATE,
    ) -> Member:
        """Change a member; who is removed loses every key. Gateways follow within a second.

        `allowed` may refuse by raising; it sees what is and what is to be, while nobody else can change it.
        Raises `NoSuchMember` or `MemberRefused`.
        """
        try:
            with outages():
                async with self._pool.acquire() as connection, connection.transaction():
                    await connection.fetch(self._sql["lock_account"], account_id)
                    old = await self._find(connection, account_id, id_or_email)
                    new = _changed(old, change)
                    allowed(old, new)
                    await self._keep_an_owner(connection, old, new)
                    columns = (new.email, new.name, new.subject, new.role.value, new.status)
                    await connection.execute(self._sql["update"], new.id, *columns)
                    action = "member.remove" if new.status == "removed" else "member.set"
                    if new != old:
                        await self._log(connection, by, action, old, new)
                    if new.status == "removed":
                        for row in await connection.fetch(self._sql["revoke_keys"], new.id):
                            revoked = {"revoked_at": row["revoked_at"]}
                            await self._audit_log.append(
                                connection, by.checked(), "key.revoke", f"key:{row['id']}", before=None, after=revoked
                            )
        except asyncpg.UniqueViolationError as error:
            raise _taken(error) from error
        return new

    async def _log(self, connection: Connection, by: Signature, action: str, old: Member | None, new: Member) -> None:
        await self._audit_log.append(connection, by.checked(), action, f"member:{new.id}", before=old, after=new)

    async def _keep_an_owner(self, connection: Connection, old: Member, new: Member) -> None:
        is_owner = [each.role is Role.OWNER and each.status == "active" for each in (old, new)]
        if is_owner == [True, False] and not await connection.fetchval(
            self._sql["other_owners"], old.account_id, old.id
        ):
            raise MemberRefused("This is the account's last owner; make another member an owner first.")


def _changed(old: Member, change: MemberChange) -> Member:
    given = {name: getattr(change, name) for name in change.__struct_fields__}
    new = msgspec.structs.replace(old, **{name: value for name, value in given.items() if value is not msgspec.UNSET})
    if new.status not in STATUSES:
        raise MemberRefused(f"{new.status!r} is not a status: active or suspended.", "status")
    email, name, subject = _checked(new.email, new.name, new.subject)
    return msgspec.structs.replace(new, email=email, name=name, subject=subject)


def _checked(email: str, name: str, subject: str | None) -> tuple[str, str, str | None]:
    email, name = email.strip(), name.strip()
    if len(email) > EMAIL_LENGTH_MAX or not email.isprintable() or not _EMAIL.fullmatch(email):
        raise MemberRefused("An e-mail address is like ada@example.com.", "email")
    if len(name) > TEXT_LENGTH_MAX or not name.isprintable():
        raise MemberRefused(f"A name is at most {TEXT_LENGTH_MAX} printable characters.", "name")
    if subject is not None and not (0 < len(subject) <= TEXT_LENGTH_MAX and subject.isprintable()):
        raise MemberRefused(f"A subject is 1 to {TEXT_LENGTH_MAX} printable characters.", "subject")
    return email, name, subject


def _taken(error: asyncpg.UniqueViolationError) -> MemberRefused:
    what = "subject" if error.constraint_name == "member_subject" else "email"
    return MemberRefused(f"Another member of this account has this {what}.", what)


def _member(row: Any) -> Member:
    return Member(
        str(row["id"]),
        str(row["account_id"]),
        row["email"],
        row["name"],
        row["subject"],
        Role(row["role"]),
        row["status"],
        row["created_at"],
    )
