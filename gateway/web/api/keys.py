"""`/api/keys`: keys as their account manages them. A secret is in one answer only: that to the request that made it."""

from datetime import datetime, timedelta

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from gateway.adapters.postgres.idempotency import Idempotency
from gateway.adapters.postgres.keys import Key, KeyExists, Keys
from gateway.adapters.postgres.members import Members
from gateway.core.access.callers import DEFAULT_SCOPES, Caller, Priority, Scope
from gateway.core.access.key_terms import KeyTerms
from gateway.core.access.roles import Role, may_give, may_have_key, may_revoke_key
from gateway.core.errors import RoleNotAllowed
from gateway.web.access import Access, signature_of
from gateway.web.idempotency import object_id_of
from gateway.web.operations import Answer, Operation, read_body
from gateway.web.pages import PAGING, Page, cursor_of, iso, limit_of, page_of

OVERLAP_S_DEFAULT, OVERLAP_S_MAX = 86_400, 90 * 86_400


class KeyAsked(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A key to be made. Without `memberId` it is the caller's own; null makes it the account's.

    Keys of low priority are refused first when a model is short of capacity, and so are all keys of such an account.
    """

    name: str = ""
    member_id: str | UnsetType | None = UNSET
    scopes: list[Scope] | UnsetType = UNSET
    expires_at: datetime | None = None
    models: list[str] = []
    endpoints: list[str] = []
    networks: list[str] = []
    priority: Priority = Priority.NORMAL


class RotationAsked(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """How many seconds the old key still works."""

    overlap_s: int = OVERLAP_S_DEFAULT


class KeyShown(msgspec.Struct, frozen=True, rename="camel"):
    """A key. `secret` is there only in the answer to the request that made it, never in a repeated one."""

    id: str
    prefix: str
    name: str
    member_id: str | None
    member_email: str | None
    scopes: list[str]
    models: list[str]
    endpoints: list[str]
    networks: list[str]
    priority: Priority
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    rotated_from: str | None
    secret: str | UnsetType = UNSET


class KeysApi:
    def __init__(self, access: Access, keys: Keys, members: Members, idempotency: Idempotency) -> None:
        self._access = access
        self._keys = keys
        self._members = members
        self._idempotency = idempotency

    def operations(self) -> list[Operation]:
        one = "/api/keys/{id}"
        return [
            Operation("GET", "/api/keys", self.list, "The account's keys, the newest first.", Page[KeyShown],
                      query=PAGING),
            Operation("POST", "/api/keys", self.create, "Make a key; its secret is shown this once.", KeyShown, 201,
                      takes=KeyAsked, creates=True),
            Operation("POST", one + "/rotate", self.rotate, "Make a key on the same terms; the old one works on for"
                      " the overlap.", KeyShown, 201, takes=RotationAsked, creates=True, needs_body=False),
            Operation("DELETE", one, self.revoke, "Revoke a key, within a second everywhere.", KeyShown),
        ]  # fmt: skip

    async def list(self, request: web.Request) -> Answer:
        caller = await self._access.reading(request)
        limit, after = limit_of(request), cursor_of(request, tuple[datetime, str])
        found = await self._keys.listing(caller.account_id, limit + 1, after)
        return Answer(page_of(found, limit, lambda key: (key.created_at, key.id), shown))

    async def create(self, request: web.Request) -> Answer:
        caller = await self._access.managing(request)
        asked = read_body(await request.read(), KeyAsked)
        member_id = caller.member_id if asked.member_id is UNSET else asked.member_id
        await self._require(caller, member_id)
        scopes = DEFAULT_SCOPES if asked.scopes is UNSET else frozenset(each.value for each in asked.scopes)
        if not may_give(caller, scopes):
            raise RoleNotAllowed("Only an owner or an admin may make keys that report usage.")
        terms = KeyTerms(
            name=asked.name,
            member_id=member_id,
            scopes=scopes,
            expires_at=asked.expires_at,
            models=tuple(asked.models),
            endpoints=tuple(asked.endpoints),
            networks=tuple(asked.networks),
            priority=asked.priority,
        )
        object_id = await object_id_of(request, caller, self._idempotency)
        try:
            secret, key_id = await self._keys.issue(caller.account_id, terms, object_id, signature_of(caller))
        except KeyExists as error:
            return Answer(shown(await self._keys.find(error.key_id, caller.account_id)), is_replay=True)
        return Answer(shown(await self._keys.find(key_id, caller.account_id), secret), 201)

    async def rotate(self, request: web.Request) -> Answer:
        caller = await self._access.managing(request)
        body = await request.read()
        asked = read_body(body, RotationAsked) if body else RotationAsked()
        old = await self._keys.find(request.match_info["id"], caller.account_id)
        await self._require(caller, old.terms.member_id)
        overlap = timedelta(seconds=min(max(asked.overlap_s, -1), OVERLAP_S_MAX + 1))
        object_id = await object_id_of(request, caller, self._idempotency)
        try:
            secret, key_id = await self._keys.rotate(old.id, overlap, object_id, signature_of(caller))
        except KeyExists as error:
            return Answer(shown(await self._keys.find(error.key_id, caller.account_id)), is_replay=True)
        return Answer(shown(await self._keys.find(key_id, caller.account_id), secret), 201)

    async def revoke(self, request: web.Request) -> Answer:
        caller = await self._access.managing(request)
        key = await self._keys.find(request.match_info["id"], caller.account_id)
        if not may_revoke_key(caller, key.terms.member_id):
            raise RoleNotAllowed("This caller may revoke its own keys only.")
        await self._keys.revoke(key.id, caller.account_id, signature_of(caller))
        return Answer(shown(await self._keys.find(key.id, caller.account_id)))

    async def _require(self, caller: Caller, member_id: str | None) -> None:
        """Raises `RoleNotAllowed` if this caller may not see the secret of such a member's key."""
        role: Role | None = None
        if member_id is not None and member_id != caller.member_id:
            role = (await self._members.find(caller.account_id, member_id)).role
        if not may_have_key(caller, member_id, role):
            raise RoleNotAllowed("This caller may not make keys of that member, or of the account.")


def shown(key: Key, secret: str | UnsetType = UNSET) -> KeyShown:
    terms = key.terms
    return KeyShown(
        id=key.id,
        prefix=key.prefix,
        name=terms.name,
        member_id=terms.member_id,
        member_email=key.member_email,
        scopes=sorted(terms.scopes),
        models=[*terms.models],
        endpoints=[*terms.endpoints],
        networks=[*terms.networks],
        priority=terms.priority,
        created_at=iso(key.created_at),
        expires_at=None if terms.expires_at is None else iso(terms.expires_at),
        revoked_at=None if key.revoked_at is None else iso(key.revoked_at),
        rotated_from=key.rotated_from,
        secret=secret,
    )
