"""`GET /api/status`: whether calls are served, and what operators have switched off: what, why and until when.

Without a key, or with one that is not good, it tells what concerns everybody.
"""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import hdrs, web

from gateway import __version__
from gateway.core.access.callers import Caller
from gateway.core.errors import GatewayError
from gateway.core.guard.policy import Controls

Authenticate = Callable[[bytes | None], Awaitable[Caller]]


class StatusRoute:
    def __init__(
        self, authenticate: Authenticate, *, is_ready: Callable[[], bool], controls: Callable[[], Controls]
    ) -> None:
        self._authenticate = authenticate
        self._is_ready = is_ready
        self._controls = controls

    def routes(self) -> list[web.AbstractRouteDef]:
        return [web.get("/api/status", self.status)]

    async def status(self, request: web.Request) -> web.Response:
        controls = self._controls()
        flags, brownouts = controls.flags, controls.brownouts
        banners = [] if flags is None else flags.banners(await self._account_id(request))
        banners += [] if brownouts is None else brownouts.banners()
        return web.json_response(
            {
                "status": "ok" if self._is_ready() else "unavailable",
                "banners": msgspec.to_builtins(banners),
                "version": __version__,
            }
        )

    async def _account_id(self, request: web.Request) -> str | None:
        authorization = request.headers.get(hdrs.AUTHORIZATION)
        if authorization is None:
            return None
        try:
            return (await self._authenticate(authorization.encode("utf-8", "surrogateescape"))).account_id
        except GatewayError:
            return None
