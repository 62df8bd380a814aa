"""Slow and leaving clients: nobody is served what he does not take, and who left is noticed while the handler waits."""

import asyncio
import socket
import struct

import pytest

from gateway.proxy.http1.errors import ClientGone
from gateway.proxy.http1.server import Limits, Request
from tests.patience import PATIENCE_S
from tests.proxy.http1.wire import HOST, edge, hang_up, hello

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
async def test_a_client_that_leaves_is_noticed_while_the_handler_waits(how: str) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()
    after: list[bool] = []

    async def wait(request: Request) -> None:
        request.on_gone(gone.set)
        arrived.set()
        await gone.wait()
        late: list[bool] = []
        request.on_gone(lambda: late.append(True))
        request.start(200, b"OK", b"", length=None)
        request.write(b"to nobody")
        await request.drain()
        request.end()
        after.append(request.gone and late == [True])

    async with edge(wait) as running, asyncio.timeout(PATIENCE_S):
        reader, writer = await running.connect()
        writer.write(GET)
        await arrived.wait()
        if how == "half-close":
            writer.write_eof()
            assert await reader.read() == b""
        elif how == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        else:
            writer.close()
        await gone.wait()
        await hang_up(writer)
    assert after == [True]
    assert running.failures == []


async def test_a_client_that_leaves_in_its_body_ends_the_reading_of_it() -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()

    async def read(request: Request) -> None:
        try:
            if request.method == b"PUT":
                async for _ in request.chunks():
                    pass
            await request.read_body(100)
        except ClientGone:
            ended.put_nowait("gone")
            raise

    async with edge(read) as running, asyncio.timeout(PATIENCE_S):
        for method in (b"PUT", b"POST"):
            _, writer = await running.connect()
            writer.write(method + b" / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab")
            await writer.drain()
            await hang_up(writer)
            assert await ended.get() == "gone"
    assert running.failures == []


async def test_a_body_nobody_reads_holds_its_sender_back() -> None:
    size = 8 * 2**20
    proceed, arrived = asyncio.Event(), asyncio.Event()
    buffered: list[int] = []

    async def slow(request: Request) -> None:
        arrived.set()
        await proceed.wait()
        buffered.append(request.buffered_bytes)
        received = 0
        async for piece in request.chunks():
            received += len(piece)
        request.respond(200, b"", b"%d" % received)

    async with (
        edge(slow, Limits(sweep_s=0.02, request_buffer_bytes_max=10_000)) as running,
        asyncio.timeout(PATIENCE_S),
    ):
        reader, writer = await running.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
        writer.write(b"x" * size)
        await arrived.wait()
        await asyncio.sleep(0.05)
        assert writer.transport.get_write_buffer_size() > 0
        proceed.set()
        assert (await reader.read()).endswith(b"\r\n\r\n%d" % size)
        await hang_up(writer)
    assert buffered[0] < 300_000  # the bound and one read


async def test_a_slow_reader_pauses_the_answer_and_resumes_it() -> None:
    piece = b"x" * 50_000
    seen: list[str] = []

    async def stream(request: Request) -> None:
        request.on_resume(lambda: seen.append("resumed"))
        request.start(200, b"OK", b"", length=None)
        sent = 0
        while sent < 400:
            request.write(piece)
            sent += 1
            if request.paused:
                seen.append("paused")
                paused.set()
                await request.drain()
                assert not request.paused
        request.end()

    paused = asyncio.Event()
    async with edge(stream) as running, asyncio.timeout(PATIENCE_S):
        reader, writer = await running.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await paused.wait()
        answer = await reader.read()
        await hang_up(writer)
    assert answer.count(piece) == 400
    assert answer.endswith(b"\r\n0\r\n\r\n")
    assert seen[:2] == ["paused", "resumed"]


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    gone = asyncio.Event()

    async def stream(request: Request) -> None:
        request.on_gone(gone.set)
        request.start(200, b"OK", b"", length=None)
        while not request.gone:
            request.write(b"x" * 100_000)
            await request.drain()

    async with edge(stream, Limits(sweep_s=0.02, write_stall_timeout_s=0.1)) as running, asyncio.timeout(PATIENCE_S):
        client = socket.create_connection((running.host, running.port))
        client.send(GET)
        await gone.wait()
        client.close()


async def test_draining_closes_the_idle_lets_the_busy_finish_and_cuts_the_rest() -> None:
    finish, left = asyncio.Event(), asyncio.Event()
    started = asyncio.Semaphore(0)

    async def work(request: Request) -> None:
        request.on_gone(left.set)
        started.release()
        await (finish if request.path == b"/quick" else left).wait()
        if not request.gone:
            request.respond(200, b"", b"done")

    async with edge(work) as running, asyncio.timeout(PATIENCE_S):
        idle_reader, idle = await running.connect()
        quick_reader, quick = await running.connect()
        slow_reader, slow = await running.connect()
        quick.write(b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n")
        slow.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await started.acquire()
        await started.acquire()
        draining = asyncio.create_task(running.server.drain(0.2))
        assert await idle_reader.read() == b""
        finish.set()
        assert (await quick_reader.read()).endswith(b"Connection: close\r\n\r\ndone")
        assert not draining.done()
        assert await slow_reader.read() == b""
        await draining
        assert running.server.connections == running.server.running == 0
        with pytest.raises(ConnectionRefusedError):
            await running.connect()
        for writer in (idle, quick, slow):
            await hang_up(writer)


async def test_draining_waits_for_an_answer_to_be_taken_whose_handler_has_ended() -> None:
    body = b"x" * 20_000_000  # more than the kernel takes at once

    async def answer(request: Request) -> None:
        request.respond(200, b"", body)

    async with edge(answer) as running, asyncio.timeout(PATIENCE_S):
        reader, writer = await running.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        draining = asyncio.create_task(running.server.drain(PATIENCE_S))
        await asyncio.sleep(0.05)
        assert running.server.running == 0
        assert await reader.read() == body
        await draining
        await hang_up(writer)


async def test_the_client_of_a_refused_upload_gets_the_refusal() -> None:
    async def refuse(request: Request) -> None:
        request.respond(401, b"", b"no")

    async with edge(refuse) as running, asyncio.timeout(PATIENCE_S):
        answer = await running.say(
            b"POST / HTTP/1.1\r\n%bContent-Length: 5000000\r\n\r\n" % HOST, *[b"x" * 100_000 for _ in range(20)]
        )
    assert answer == b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"


async def test_an_answer_may_end_before_its_handler() -> None:
    settled = asyncio.Event()

    async def settle_later(request: Request) -> None:
        await hello(request)
        await settled.wait()

    async with edge(settle_later) as running, asyncio.timeout(PATIENCE_S):
        reader, writer = await running.connect()
        for _ in range(2):
            writer.write(GET)
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
        assert running.server.running == 2
        settled.set()
        await hang_up(writer)
