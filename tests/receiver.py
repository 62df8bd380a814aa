"""A receiver of webhooks for tests: keeps what came, answers as it is told, and lets a test wait for the next one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web


class Came(NamedTuple):
    headers: dict[str, str]
    body: bytes


class Receiver:
    def __init__(self) -> None:
        self.came: list[Came] = []
        self.url = ""
        self.status = 200
        self.answer = b""
        self.location = ""
        self.is_silent = False
        self._news = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.came.append(Came({name.lower(): value for name, value in request.headers.items()}, body))
        self._news.set()
        if self.is_silent:
            await asyncio.Event().wait()
        headers = {"Location": self.location} if self.location else None
        return web.Response(status=self.status, body=self.answer, headers=headers)

    async def wait_for(self, count: int, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            while len(self.came) < count:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", receiver.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address: Any = runner.addresses[0]
    receiver.url = f"http://127.0.0.1:{address[1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()
