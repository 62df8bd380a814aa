"""The operations listener of a stack, and operators who ask it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from gateway.adapters.postgres.audit_log import Signature
from gateway.app.ops import ops_routes
from gateway.core.access.operators import Role
from gateway.web.metrics import registry
from gateway.web.ops.listener import exposition, listen, ops_app
from tests.proxy.stack import Stack

BOSS = Signature("boss", "new here")


@asynccontextmanager
async def operating(stack: Stack) -> AsyncIterator[str]:
    """Listen for operators, as a gateway does; yields the origin."""
    gateway = stack.gateway
    routes = ops_routes(stack.config, stack.stores, gateway.stripe)
    app = ops_app(gateway.readiness, exposition(registry(gateway.metrics)), routes)
    runner, url = await listen(app, "127.0.0.1", 0)
    try:
        yield url
    finally:
        await runner.cleanup()


class Desk:
    def __init__(self, stack: Stack, url: str, session: aiohttp.ClientSession) -> None:
        self.stack = stack
        self.url = url
        self._session = session
        self._keys: dict[str, str] = {}

    async def ask(self, method: str, path: str, body: Any = None, *, by: str = "ann") -> tuple[int, Any]:
        """`by`: "ann" and "bob" are operators, "eve" a viewer, "boss" an admin, others nobody."""
        roles = {"ann": Role.OPERATOR, "bob": Role.OPERATOR, "eve": Role.VIEWER, "boss": Role.ADMIN}
        if by in roles and by not in self._keys:
            self._keys[by], _ = await self.stack.stores.ops_keys.create(by, roles[by], BOSS)
        headers = {"Authorization": f"Bearer {self._keys.get(by, by)}"}
        async with self._session.request(method, f"{self.url}{path}", json=body, headers=headers) as reply:
            return reply.status, await reply.json()

    async def log(self) -> list[Any]:
        _, page = await self.ask("GET", "/ops/audit-log?limit=1000", by="eve")
        return [line for line in page["data"] if line["author"] in self._keys and line["action"] != "ops_key.create"]
