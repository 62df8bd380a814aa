"""`/api/members`: an account's people, as far as the caller's role lets it manage them."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from gateway.adapters.postgres.idempotency import Idempotency
from gateway.adapters.postgres.members import Member, MemberChange, MemberExists, Members
from gateway.core.access.callers import Caller
from gateway.core.access.roles import Role, may_manage_member
from gateway.core.errors import RoleNotAllowed
from gateway.web.access import Access, signature_of
from gateway.web.idempotency import object_id_of
from gateway.web.operations import Answer, Operation, read_body
from gateway.web.pages import PAGING, Page, cursor_of, iso, limit_of, page_of


class MemberStatus(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"


class MemberAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member to be added. `subject` is who it is at the identity provider."""

    email: str
    role: Role
    name: str = ""
    subject: str | None = None


class MemberChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be another; the rest stays."""

    email: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    subject: str | UnsetType | None = UNSET
    role: Role | UnsetType = UNSET
    status: MemberStatus | UnsetType = UNSET


class MemberShown(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    email: str
    name: str
    subject: str | None
    role: Role
    status: str
    created_at: str


class MembersApi:
    def __init__(self, access: Access, members: Members, idempotency: Idempotency) -> None:
        self._access = access
        self._members = members
        self._idempotency = idempotency

    def operations(self) -> list[Operation]:
        one = "/api/members/{id}"
        return [
            Operation("GET", "/api/members", self.list, "The account's members.", Page[MemberShown], query=PAGING),
            Operation("POST", "/api/members", self.add, "Add a member.", MemberShown, 201, takes=MemberAsked,
                      creates=True),
            Operation("PATCH", one, self.change, "Change a member.", MemberShown, takes=MemberChanges),
            Operation("DELETE", one, self.remove, "Remove a member and revoke its keys.", MemberShown),
        ]  # fmt: skip

    async def list(self, request: web.Request) -> Answer:
        caller = await self._access.reading(request)
        limit, after = limit_of(request), cursor_of(request, tuple[datetime, UUID])
        behind = None if after is None else (after[0], str(after[1]))
        found = await self._members.listing(caller.account_id, limit + 1, behind)
        return Answer(page_of(found, limit, lambda member: (member.created_at, member.id), shown))

    async def add(self, request: web.Request) -> Answer:
        caller = await self._access.managing(request)
        asked = read_body(await request.read(), MemberAsked)
        _require(caller, asked.role)
        object_id = await object_id_of(request, caller, self._idempotency)
        try:
            made = await self._members.create(
                caller.account_id,
                asked.email,
                asked.role,
                name=asked.name,
                subject=asked.subject,
                member_id=object_id,
                by=signature_of(caller),
            )
        except MemberExists as error:
            return Answer(shown(await self._members.find(caller.account_id, error.member_id)), is_replay=True)
        return Answer(shown(made), 201)

    async def change(self, request: web.Request) -> Answer:
        caller = await self._access.managing(request)
        asked = read_body(await request.read(), MemberChanges)
        given = {name: getattr(asked, name) for name in asked.__struct_fields__}
        return await self._change(caller, request.match_info["id"], MemberChange(**given))

    async def remove(self, request: web.Request) -> Answer:
        caller = await self._access.managing(request)
        return await self._change(caller, request.match_info["id"], MemberChange(status="removed"))

    async def _change(self, caller: Caller, member_id: str, change: MemberChange) -> Answer:
        changed = await self._members.change(
            caller.account_id,
            member_id,
            change,
            lambda old, new: _require(caller, old.role, new.role),
            signature_of(caller),
        )
        return Answer(shown(changed))


def _require(caller: Caller, *roles: Role) -> None:
    if not may_manage_member(caller, *roles):
        raise RoleNotAllowed("This caller may not manage members of that role.")


def shown(member: Member) -> MemberShown:
    return MemberShown(
        member.id, member.email, member.name, member.subject, member.role, member.status, iso(member.created_at)
    )
