"""`/ops/me` and `/ops/keys`: who asks, and who may. Keys are made and revoked by admins."""

import msgspec
from aiohttp import web

from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.ops_keys import OpsKey, OpsKeys
from gateway.core.access.operators import Operator, Role
from gateway.web.operations import Answer, Operation, read_body
from gateway.web.ops.access import OperatorAccess


class KeysShown(msgspec.Struct, frozen=True):
    data: list[OpsKey]


class KeyAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`name`: the author of all that is done with the key."""

    name: str
    role: Role
    reason: str


class KeyMade(msgspec.Struct, frozen=True):
    """The key is shown this once."""

    id: str
    key: str
    name: str
    role: Role


class RevokeAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str


class Revoked(msgspec.Struct, frozen=True):
    id: str
    state: str = "revoked"


class KeysApi:
    def __init__(self, access: OperatorAccess, keys: OpsKeys) -> None:
        self._access = access
        self._keys = keys

    def operations(self) -> list[Operation]:
        one = "/ops/keys/{id}/revoke"
        return [
            Operation("GET", "/ops/me", self.me, "Who asks.", Operator),
            Operation("GET", "/ops/keys", self.keys, "Every operator's key.", KeysShown),
            Operation("POST", "/ops/keys", self.create, "Make a key.", KeyMade, status=201, takes=KeyAsked),
            Operation("POST", one, self.revoke, "Refuse the key from now on.", Revoked, takes=RevokeAsked),
        ]

    async def me(self, request: web.Request) -> Answer:
        return Answer(await self._access.operator(request, Role.VIEWER))

    async def keys(self, request: web.Request) -> Answer:
        await self._access.operator(request, Role.ADMIN)
        return Answer(KeysShown(await self._keys.list()))

    async def create(self, request: web.Request) -> Answer:
        operator = await self._access.operator(request, Role.ADMIN)
        asked = read_body(await request.read(), KeyAsked)
        secret, key_id = await self._keys.create(asked.name, asked.role, Signature(operator.name, asked.reason))
        return Answer(KeyMade(key_id, secret, asked.name, asked.role), status=201)

    async def revoke(self, request: web.Request) -> Answer:
        operator = await self._access.operator(request, Role.ADMIN)
        asked = read_body(await request.read(), RevokeAsked)
        key_id = request.match_info["id"]
        await self._keys.revoke(key_id, Signature(operator.name, asked.reason))
        return Answer(Revoked(key_id))
