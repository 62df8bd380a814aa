"""Slow clients: who sends or takes less than the least rate is given up, who keeps to it is served to the end."""

import asyncio
import socket
from typing import cast

import pytest

from gateway.proxy.http1.server import Limits, Request, Server
from tests.patience import PATIENCE_S
from tests.proxy.http1.wire import HOST, Edge, echo, edge, hang_up, hello, refused

# 1000 bytes in every 0.2 s.
LIMITS = Limits(
    sweep_s=0.02, head_timeout_s=0.3, body_idle_timeout_s=0.2, write_stall_timeout_s=0.2, bytes_per_s_min=5000
)


async def drip(running: Edge, start: bytes, piece: bytes, *, every_s: float, count: int) -> bytes:
    """Send `start`, then `piece` again and again, until the edge answers."""
    reader, writer = await running.connect()
    async with asyncio.timeout(PATIENCE_S):
        writer.write(start)
        answering = asyncio.create_task(reader.read())
        for _ in range(count):
            await asyncio.wait([answering], timeout=every_s)
            if answering.done():
                break
            writer.write(piece)
        answer = await answering
    await hang_up(writer)
    return answer


CHUNKED = b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n" % HOST


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET / HTTP/1.1\r\nX: ", b"x"),
        (b"POST / HTTP/1.1\r\n%bContent-Length: 100000\r\n\r\n" % HOST, b"x"),
        (b"POST / HTTP/1.1\r\n%bContent-Length: 100000\r\n\r\n%b" % (HOST, b"x" * 50_000), b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + b"1;", b"x"),
        (CHUNKED + b"0\r\nT: ", b"x"),
    ],
    ids=["head", "body", "body after a fast start", "chunks", "chunk extension", "trailer"],
)
async def test_what_drips_gets_408(start: bytes, piece: bytes) -> None:
    async with edge(echo, LIMITS) as running:
        answer = await drip(running, start, piece, every_s=0.03, count=100)
        assert refused(answer) == (408, "request_timeout")


async def test_a_slow_body_that_keeps_to_the_rate_is_served_for_as_long_as_it_takes() -> None:
    start = b"POST / HTTP/1.1\r\n%bConnection: close\r\nContent-Length: 15000\r\n\r\n" % HOST
    async with edge(hello, LIMITS) as running:
        assert (await drip(running, start, b"x" * 500, every_s=0.02, count=30)).endswith(b"hello")


async def test_the_rate_does_not_count_while_nobody_takes_the_body() -> None:
    async def late(request: Request) -> None:
        await asyncio.sleep(0.5)
        async for _ in request.chunks():
            await asyncio.sleep(0.1)
        request.respond(200, b"", b"done")

    start = b"POST / HTTP/1.1\r\n%bConnection: close\r\nContent-Length: 8\r\n\r\n" % HOST
    async with edge(late, LIMITS) as running:
        assert (await drip(running, start, b"x", every_s=0.02, count=8)).endswith(b"done")


@pytest.mark.parametrize(("field", "buffer_bytes"), [(b"", 20_000), (b"Connection: close\r\n", 1_000_000)])
@pytest.mark.parametrize("piece_bytes", [4096, 1])
async def test_an_answer_must_be_taken_at_the_rate(piece_bytes: int, field: bytes, buffer_bytes: int) -> None:
    """4 kB every 10 ms take long enough to be cut many times if only the end counted."""
    size = 300_000
    limits = Limits(
        sweep_s=0.02,
        linger_timeout_s=0.02,
        write_stall_timeout_s=0.1,
        bytes_per_s_min=20_000,
        write_high_water_bytes=buffer_bytes,
    )

    async def large(request: Request) -> None:
        request.respond(200, b"", b"x" * size)

    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    server = Server(large, limits)
    await server.start(sock=listener)
    received = 0
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        client.setblocking(False)
        async with asyncio.timeout(PATIENCE_S):
            await loop.sock_sendall(client, b"GET / HTTP/1.1\r\n%b%b\r\n" % (HOST, field))
            while received < size and (server.connections or not received):
                received += len(await loop.sock_recv(client, piece_bytes))
                await asyncio.sleep(0.01)
            while received < size and (rest := await loop.sock_recv(client, size)):
                received += len(rest)
    await server.drain(0.0)
    assert (received >= size) == (piece_bytes == 4096)


async def test_a_client_that_takes_no_answer_is_given_no_further_one() -> None:
    served = 0

    async def large(request: Request) -> None:
        nonlocal served
        served += 1
        request.respond(200, b"", b"x" * 20_000_000)

    async with edge(large) as running, asyncio.timeout(PATIENCE_S):
        reader, writer = await running.connect()
        transport = cast(asyncio.Transport, writer.transport)
        transport.pause_reading()
        writer.write(b"GET / HTTP/1.1\r\n%b\r\n" % HOST * 3)
        while not served:
            await asyncio.sleep(0.01)
        writer.write(b"GET / HTTP/1.1\r\n%bConnection: close\r\n\r\n" % HOST)
        await asyncio.sleep(0.1)
        assert served == 1
        transport.resume_reading()
        assert len(await reader.read()) > 80_000_000
        assert served == 4
        await hang_up(writer)
