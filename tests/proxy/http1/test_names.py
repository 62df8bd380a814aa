"""An upstream's name is looked up for each new connection, and none outlives its age: a changed name is followed.

Of several addresses, one that does not answer costs no call that another one would serve.
"""

import asyncio
import socket
import ssl
from typing import Any

import pytest

from gateway.proxy.http1.client import Buffers, Pool, Timeouts
from gateway.proxy.http1.names import Name
from tests.patience import PATIENCE_S
from tests.proxy.http1.wire import always

NAME = "upstream.example"


class Resolver:
    """What the system would answer for `NAME`."""

    def __init__(self) -> None:
        self.addresses = ["127.0.0.1"]
        self.asked = 0

    def getaddrinfo(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        assert host == NAME
        self.asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]


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
        resolver.addresses = ["127.0.0.2"]
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


class Network:
    """What becomes of an attempt to connect to each address: an error, silence (None), or its own name (else)."""

    def __init__(self, **outcomes: OSError | None) -> None:
        self.outcomes = outcomes
        self.tried = ""

    async def connect(self, address: str) -> str:
        self.tried += address
        outcome = self.outcomes.get(address, self)
        if isinstance(outcome, OSError):
            raise outcome
        if outcome is None:
            await asyncio.Event().wait()
        return address


def reach(network: Network, *, times: int = 1) -> str:
    """Connect to one name some times; returns the addresses that were reached."""

    async def go() -> str:
        name = Name(NAME, 443, connect_s=PATIENCE_S)
        return "".join([await name.reach(network.connect) for _ in range(times)])

    return asyncio.run(go())


def test_an_address_that_is_silent_costs_no_call_and_is_tried_last_from_then_on(resolver: Resolver) -> None:
    resolver.addresses = list("abcdefgh")  # so that g has little of the time: a 128th
    network = Network(**dict.fromkeys("abcdef", ConnectionRefusedError()), g=None)
    assert reach(network, times=2) == "hh"
    assert network.tried == "abcdefgh" + "abcdefh"


def test_an_address_that_refuses_is_passed_over_each_time(resolver: Resolver) -> None:
    resolver.addresses = ["a", "b", "c"]
    network = Network(a=ConnectionRefusedError(), b=TimeoutError())
    assert reach(network, times=2) == "cc"
    assert network.tried == "abcac"


def test_when_no_address_can_be_reached_the_last_one_says_why(resolver: Resolver) -> None:
    resolver.addresses = ["a", "b"]
    with pytest.raises(ConnectionResetError):
        reach(Network(a=ConnectionRefusedError(), b=ConnectionResetError()))


def test_a_certificate_that_is_refused_is_not_passed_over(resolver: Resolver) -> None:
    resolver.addresses = ["a", "b"]
    network = Network(a=ssl.SSLCertVerificationError())
    with pytest.raises(ssl.SSLCertVerificationError):
        reach(network)
    assert network.tried == "a"
