"""An upstream's name is looked up for each new connection, and none outlives its age: a changed name is followed."""

import asyncio
import socket
from typing import Any

import pytest

from gateway.proxy.http1.client import Buffers, Pool, Timeouts
from tests.patience import PATIENCE_S
from tests.proxy.http1.wire import always

NAME = "upstream.example"


class Resolver:
    """What the system would answer for `NAME`."""

    def __init__(self) -> None:
        self.address = "127.0.0.1"
        self.asked = 0

    def getaddrinfo(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        assert host == NAME
        self.asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.address, port))]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    return resolver


def test_a_changed_name_is_followed_when_the_connections_have_aged(resolver: Resolver) -> None:
    """On asyncio, whose look-ups go through the socket module; uvloop's go to the system, with the same arguments."""

    async def follow() -> list[bytes]:
        first = await asyncio.start_server(always(answer(b"old")), "127.0.0.1", 0)
        port = first.sockets[0].getsockname()[1]
        second = await asyncio.start_server(always(answer(b"new")), "127.0.0.2", port)
        pool = Pool(f"http://{NAME}:{port}", timeouts=Timeouts(age_s_max=0.1), buffers=Buffers(sweep_s=0.02))
        seen = [await get(pool), await get(pool)]
        assert resolver.asked == 1
        resolver.address = "127.0.0.2"
        while seen[-1] == b"old":
            await asyncio.sleep(0.02)
            seen.append(await get(pool))
        await pool.close()
        first.close()
        second.close()
        return seen

    async def within_patience() -> list[bytes]:
        async with asyncio.timeout(PATIENCE_S):
            return await follow()

    seen = asyncio.run(within_patience())
    assert seen[0] == seen[1] == b"old"
    assert seen[-1] == b"new"
    assert resolver.asked == 2


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + body


async def get(pool: Pool) -> bytes:
    return await (await pool.send(b"GET", b"/", [], None)).read(10)
