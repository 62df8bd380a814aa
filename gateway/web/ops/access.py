"""Who uses the operations API, and what for: every path of /ops begins here. `authenticate` is the only way in."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from gateway.adapters.postgres.accounts import AccountError, NoSuchAccount
from gateway.adapters.postgres.audit_log import ChangeRefused
from gateway.adapters.postgres.cap_desk import NoSuchHolder
from gateway.adapters.postgres.ops_keys import OpsKeys
from gateway.adapters.postgres.reviews import ReviewError
from gateway.core.access.operators import Operator, Role
from gateway.core.errors import InvalidRequest, NotFound, RoleNotAllowed, Unauthenticated
from gateway.web.operations import Answer, Operation

if TYPE_CHECKING:
    from gateway.adapters.operator_tokens import TokenOperators  # it brings cryptography, which is large

# Whom a request proves; raises `Unauthenticated`, the same whatever the cause.
Authenticate = Callable[[web.Request], Awaitable[Operator]]

_NOBODY = "Incorrect operator's key. Pass a valid one as 'Authorization: Bearer sk-ops-…'."


def by_key_or_token(keys: OpsKeys, tokens: "TokenOperators | None") -> Authenticate:
    """Operators prove themselves by a key, or by a token of their provider, in the Authorization header."""

    async def authenticate(request: web.Request) -> Operator:
        given = request.headers.getall(hdrs.AUTHORIZATION, [])
        operator = await _find(given[0].encode("utf-8", "surrogateescape")) if len(given) == 1 else None
        if operator is None:
            raise Unauthenticated(_NOBODY)
        return operator

    async def _find(authorization: bytes) -> Operator | None:
        try:
            by_token = None if tokens is None else await tokens.find(authorization)
        except Unauthenticated:
            return None
        return by_token or await keys.find(authorization)

    return authenticate


class OperatorAccess:
    def __init__(self, authenticate: Authenticate) -> None:
        self._authenticate = authenticate

    async def operator(self, request: web.Request, needed: Role) -> Operator:
        """Who asks, if its role suffices; raises `Unauthenticated` or `RoleNotAllowed`."""
        operator = await self._authenticate(request)
        if not operator.role.may(needed):
            raise RoleNotAllowed(f"This needs the role {needed.value!r}; you have {operator.role.value!r}.")
        return operator


def told_refusals(operations: list[Operation]) -> list[Operation]:
    """The same, with what adapters refuse told as what it is to an operator: a request that cannot be done so."""
    return [each._replace(handle=_told(each.handle)) for each in operations if each.handle is not None]


def _told(handle: Callable[[web.Request], Awaitable[Answer]]) -> Callable[[web.Request], Awaitable[Answer]]:
    async def serve(request: web.Request) -> Answer:
        try:
            return await handle(request)
        except (NoSuchAccount, NoSuchHolder) as error:
            raise NotFound(str(error)) from error
        except (ChangeRefused, AccountError, ReviewError) as error:
            raise InvalidRequest(str(error)) from error

    return serve
