"""What another server in this process gets of a client, and what the client gets of it: on one connection, in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import msgspec
import pytest
from aiohttp import web

from gateway.core.errors import GatewayError
from gateway.proxy.http1.handover import Handover
from gateway.proxy.http1.server import Limits, Request
from tests.patience import PATIENCE_S
from tests.proxy.http1.wire import HOST, QUICK, Edge, edge, hang_up, read_head

ADDED = (b"x-added", b"1")
CLOSE = b"Connection: close\r\n"


async def _echo(request: web.Request) -> web.StreamResponse:
    seen = {
        "target": request.path_qs,
        "headers": [[name.decode(), value.decode()] for name, value in request.raw_headers],
        "body": await request.text(),
        "remote": request.remote,
    }
    return web.json_response(seen)


async def _stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(3):
        await response.write(b"piece ")
    return response


async def _large(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    request.app[WRITTEN].clear()
    try:
        for _ in range(1000):
            await response.write(bytes(64 * 1024))
            request.app[WRITTEN].append(64 * 1024)
    finally:
        request.app[ENDED].set()
    return response


async def _broken(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "10"})
    await response.prepare(request)
    await response.write(b"half")
    raise RuntimeError("in the middle")


async def _wait(request: web.Request) -> web.StreamResponse:
    request.app[ARRIVED].set()
    await request.app[GO_ON].wait()
    return web.Response(text="done")


WRITTEN = web.AppKey("written", list[int])
ARRIVED = web.AppKey("arrived", asyncio.Event)
GO_ON = web.AppKey("go_on", asyncio.Event)
ENDED = web.AppKey("ended", asyncio.Event)


async def _leave_connection(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall("Connection", None)


def _app() -> web.Application:
    app = web.Application()
    app[WRITTEN], app[ARRIVED], app[GO_ON], app[ENDED] = [], asyncio.Event(), asyncio.Event(), asyncio.Event()
    app.add_routes([web.route("*", f"/{each.__name__[1:]}", each) for each in (_echo, _stream, _large, _broken, _wait)])
    app.on_response_prepare.append(_leave_connection)
    return app


@asynccontextmanager
async def handing_over(limits: Limits = QUICK, drain_s: float = 0.0) -> AsyncIterator[tuple[Edge, web.Application]]:
    """An edge that answers /own itself, and hands everything else over."""
    app = _app()
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    assert runner.server is not None
    handover = Handover(runner.server, body_bytes_max=1000)

    async def handle(request: Request) -> None:
        if request.path == b"/own":
            request.respond(200, b"", b"own")
            return
        try:
            await handover.serve(request, ADDED)
        except GatewayError as error:
            request.respond(error.status, b"", error.body())

    async with edge(handle, limits, drain_s) as running:
        yield running, app
        assert running.failures == []
    await runner.cleanup()


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await read_head(reader)
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head, await reader.readexactly(length)


async def test_the_other_server_gets_the_request_as_it_was_meant() -> None:
    async with handing_over() as (running, _):
        answer = await running.say(
            b"POST /echo?a=%20b HTTP/1.1\r\nHOST: a\r\nTransfer-Encoding: chunked\r\nX-Odd: 1\r\nX-Added: spoofed\r\n"
            b"Connection: close, X-Hop\r\nX-Hop: 1\r\n\r\n5\r\nhe",
            b"llo\r\n0\r\n\r\n",
        )
    seen = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])
    assert seen["target"] == "/echo?a=%20b"
    assert seen["body"] == "hello"
    assert seen["remote"] == "127.0.0.1"
    assert seen["headers"] == [
        ["Host", "a"],
        ["X-Odd", "1"],
        ["x-added", "1"],
        ["Content-Length", "5"],
        ["Connection", "close"],
    ]


async def test_one_connection_serves_both_in_turn() -> None:
    async with handing_over() as (running, _):
        reader, writer = await running.connect()
        async with asyncio.timeout(PATIENCE_S):
            for path, expected in [(b"/own", b"own"), (b"/echo", b"/echo"), (b"/own", b"own"), (b"/echo", b"/echo")]:
                writer.write(b"GET %b HTTP/1.1\r\n%b\r\n" % (path, HOST))
                head, body = await read_answer(reader)
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                assert expected in body
                assert b"connection" not in head.lower()
        await hang_up(writer)


async def test_pipelined_requests_are_answered_in_order_by_whom_they_are_for() -> None:
    pipelined = [b"/echo?1", b"/own", b"/echo?2", b"/own"]
    async with handing_over() as (running, _):
        reader, writer = await running.connect()
        writer.write(b"".join(b"GET %b HTTP/1.1\r\n%b\r\n" % (path, HOST) for path in pipelined))
        async with asyncio.timeout(PATIENCE_S):
            bodies = [(await read_answer(reader))[1] for _ in pipelined]
        await hang_up(writer)
    assert [msgspec.json.decode(body)["target"] for body in bodies[::2]] == ["/echo?1", "/echo?2"]
    assert bodies[1::2] == [b"own", b"own"]


async def test_a_streamed_answer_keeps_the_connection() -> None:
    async with handing_over() as (running, _):
        reader, writer = await running.connect()
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(2):
                writer.write(b"GET /stream HTTP/1.1\r\n%b\r\n" % HOST)
                assert b"Transfer-Encoding: chunked" in await read_head(reader)
                assert (await reader.readuntil(b"0\r\n\r\n")).count(b"piece ") == 3
        await hang_up(writer)


@pytest.mark.parametrize(
    "said",
    [
        b"HEAD /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /echo HTTP/1.0\r\n\r\n",
        b"GET /stream HTTP/1.0\r\n\r\n",
        b"GET /unheard-of HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ],
)
async def test_a_client_that_closes_gets_its_answer_and_the_end(said: bytes) -> None:
    async with handing_over() as (running, _):
        answer = await running.say(said)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.")
    assert bool(body) == (not said.startswith(b"HEAD"))


async def test_an_answer_that_breaks_off_is_seen_to_be_cut() -> None:
    async with handing_over() as (running, _):
        answer = await running.say(b"GET /broken HTTP/1.1\r\n%b\r\nGET /own HTTP/1.1\r\n%b\r\n" % (HOST, HOST))
    assert answer.endswith(b"half")


async def test_what_the_edge_refuses_never_arrives() -> None:
    async with handing_over() as (running, app):
        for malformed in (b"GET /wait HTTP/1.1\r\n\r\n", b"GET /wait HTTP/1.1\nHost: a\n\n", b"GET /wait\r\n\r\n"):
            assert (await running.say(malformed))[9:12] in (b"400", b"505")
        assert not app[ARRIVED].is_set()


async def test_a_body_beyond_the_bound_is_413_and_never_arrives() -> None:
    async with handing_over() as (running, app):
        answer = await running.say(
            b"POST /wait HTTP/1.1\r\n%bContent-Length: 1001\r\n\r\n" % (HOST + CLOSE), bytes(1001)
        )
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert not app[ARRIVED].is_set()


async def held_back(app: web.Application) -> int:
    """Wait until /large is not written on; returns how many pieces of it were."""
    seen = -1
    while seen != len(app[WRITTEN]):
        seen = len(app[WRITTEN])
        await asyncio.sleep(0.3)
    return seen


async def test_a_slow_client_holds_the_other_server_back() -> None:
    async with handing_over() as (running, app):
        reader, writer = await running.connect()
        transport = cast(asyncio.Transport, writer.transport)
        writer.write(b"GET /large HTTP/1.1\r\n%b\r\n" % HOST)
        await read_head(reader)
        transport.pause_reading()
        assert 0 < await held_back(app) < 500
        transport.resume_reading()
        tail = b""
        async with asyncio.timeout(PATIENCE_S):
            while not tail.endswith(b"\r\n0\r\n\r\n"):
                tail = tail[-10:] + await reader.read(1 << 20)
        assert len(app[WRITTEN]) == 1000
        await hang_up(writer)


async def test_a_handler_ends_though_its_client_has_left() -> None:
    async with handing_over(drain_s=PATIENCE_S) as (running, app):
        _, writer = await running.connect()
        writer.write(b"GET /wait HTTP/1.1\r\n%b\r\n" % HOST)
        await app[ARRIVED].wait()
        await hang_up(writer)
        app[GO_ON].set()


async def test_a_handler_that_waits_for_a_slow_client_ends_when_that_leaves() -> None:
    async with handing_over(drain_s=PATIENCE_S) as (running, app):
        _, writer = await running.connect()
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(b"GET /large HTTP/1.1\r\n%b\r\n" % HOST)
        await held_back(app)
        writer.transport.abort()
        async with asyncio.timeout(PATIENCE_S):
            await app[ENDED].wait()


async def test_a_drain_waits_for_the_answer_and_ends_what_outlasts_it() -> None:
    for drain_s, goes_on in ((PATIENCE_S, True), (0.0, False)):
        async with handing_over(Limits(sweep_s=0.02, abort_grace_s=0.1), drain_s) as (running, app):
            reader, writer = await running.connect()
            writer.write(b"GET /wait HTTP/1.1\r\n%b\r\n" % HOST)
            await app[ARRIVED].wait()
            if goes_on:
                asyncio.get_running_loop().call_later(0.1, app[GO_ON].set)
            answered = asyncio.create_task(reader.read())
            await running.server.stop_accepting()
        assert (await answered).endswith(b"done") == goes_on
        await hang_up(writer)
