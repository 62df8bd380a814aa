"""Who asks the control plane, and what for: every path of /api and /billing begins here."""

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from gateway.adapters.postgres.audit_log import Signature
from gateway.core.access.addresses import Address, Network, client_address
from gateway.core.access.callers import Caller, Scope
from gateway.core.access.roles import Role, may_buy, role_of
from gateway.core.errors import RoleNotAllowed, ScopeMissing, Unauthenticated
from gateway.core.guard.policy import inactive

Authenticate = Callable[[bytes | None], Awaitable[Caller]]


class Access:
    def __init__(self, authenticate: Authenticate, trusted_proxies: tuple[Network, ...]) -> None:
        self._authenticate = authenticate
        self._trusted_proxies = trusted_proxies

    async def reading(self, request: web.Request) -> Caller:
        """Whoever may look at its account, also while that is out of service."""
        caller = await self._caller(request)
        if role_of(caller) is None:
            raise ScopeMissing("This API key lacks the scope 'read', which this path needs.")
        return caller

    async def managing(self, request: web.Request) -> Caller:
        """Whoever may manage anything in its account."""
        caller = await self._caller(request)
        if caller.status != "active":
            raise inactive(caller)
        role = role_of(caller)
        if role is None or (role is Role.VIEWER and caller.role != Role.VIEWER):
            raise ScopeMissing("This API key lacks the scope 'manage', which this path needs.")
        if role is Role.VIEWER:
            raise RoleNotAllowed
        return caller

    async def buying(self, request: web.Request) -> Caller:
        caller = await self._caller(request)
        if caller.status != "active":
            raise inactive(caller)
        if not may_buy(caller):
            raise RoleNotAllowed("This caller may not buy: that needs the scope 'buy', and more than a viewer's role.")
        return caller

    async def reporting(self, request: web.Request) -> Caller:
        """Whoever may report usage that was made elsewhere."""
        caller = await self._caller(request)
        if caller.status != "active":
            raise inactive(caller)
        if Scope.REPORT not in caller.scopes:
            raise ScopeMissing("This API key lacks the scope 'report', which this path needs.")
        return caller

    async def _caller(self, request: web.Request) -> Caller:
        given = request.headers.getall(hdrs.AUTHORIZATION, [])
        if len(given) > 1:
            raise Unauthenticated
        caller = await self._authenticate(given[0].encode("utf-8", "surrogateescape") if given else None)
        if caller.is_barred:
            raise inactive(caller)
        if caller.restrictions is not None and caller.restrictions.networks:
            caller.restrictions.check_address(self.address(request))
        return caller

    def address(self, request: web.Request) -> Address | None:
        """Where the request comes from."""
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        forwarded_for = request.headers.getall(hdrs.X_FORWARDED_FOR, [])
        where = "" if peer is None else f"{peer[0]}:{peer[1]}"
        return client_address(where, forwarded_for, self._trusted_proxies)


def signature_of(caller: Caller) -> Signature:
    """How a change that this caller makes to its own account stands in the audit log: by ids, which nobody renames."""
    author = f"key {caller.key_id}" if caller.member_id is None else f"member {caller.member_id}"
    return Signature(author, f"asked over the API, with {caller.key_id}")
