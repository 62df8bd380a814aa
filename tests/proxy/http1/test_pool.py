"""What the upstream pool sends and takes back, against scripted upstreams."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.proxy.http1.client import (
    Answer,
    AnswerBroken,
    AnswerTooLarge,
)
from tests.patience import PATIENCE_S
from tests.proxy.http1.wire import always, ask, pool_to, read_head, upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"


async def pumped(answer: Answer) -> bytes:
    pieces: list[bytes] = []
    async with asyncio.timeout(PATIENCE_S):
        await answer.pump(pieces.append)
    return b"".join(pieces)


async def test_a_request_is_sent_as_it_is_with_host_and_length_added() -> None:
    sent: list[bytes] = []

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for body_bytes in (3, 0, 0, 0):
            sent.append(await read_head(reader) + await reader.readexactly(body_bytes))
            writer.write(OK)

    async with upstream(record) as origin, pool_to(origin) as pool:
        for method, body in ((b"POST", b"abc"), (b"GET", None), (b"POST", None), (b"DELETE", b"")):
            assert await (await ask(pool, method, body)).read(10) == b"ab"
        assert pool.connections == pool.idle == 1
    start = b" /v1/x?a=%%20 HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\nHost: %b\r\n" % origin.removeprefix("http://").encode()
    assert sent == [
        b"POST" + start + b"Content-Length: 3\r\n\r\nabc",
        b"GET" + start + b"\r\n",
        b"POST" + start + b"Content-Length: 0\r\n\r\n",
        b"DELETE" + start + b"\r\n",
    ]


async def test_an_iterated_body_is_chunked_or_of_known_length() -> None:
    received: list[bytes] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        yield b""
        yield b"d" * 10

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if b"chunked" in head:
            received.append(await reader.readuntil(b"0\r\n\r\n"))
        else:
            received.append(await reader.readexactly(13))
        writer.write(OK)

    async with upstream(record) as origin, pool_to(origin) as pool:
        await (await ask(pool, b"POST", pieces())).read(10)
        await (await pool.send(b"POST", b"/", [], pieces(), length=13)).read(10)
        with pytest.raises(ValueError, match="12 bytes"):
            await pool.send(b"POST", b"/", [], pieces(), length=12)
    assert received == [b"3\r\nabc\r\na\r\ndddddddddd\r\n0\r\n\r\n", b"abc" + b"d" * 10]


async def test_a_body_that_fails_ends_the_request_with_its_error() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ZeroDivisionError

    async with upstream(always(b"")) as origin, pool_to(origin) as pool:
        with pytest.raises(ZeroDivisionError):
            await ask(pool, b"POST", failing())


async def test_a_connection_is_not_used_again_behind_a_body_that_upstream_has_not_taken() -> None:
    async def answer_and_read_no_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK)
        await asyncio.Event().wait()

    async with upstream(answer_and_read_no_more) as origin, pool_to(origin) as pool:
        for _ in range(2):
            answer = await ask(pool, b"POST", bytes(1 << 25))
            assert await answer.read(10) == b"ab"
            assert pool.idle == 0


async def test_an_early_answer_stops_the_upload_and_closes() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0)

    async with upstream(always(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")) as origin, pool_to(origin) as pool:
        answer = await ask(pool, b"POST", endless())
        assert (answer.status, await answer.read(10)) == (413, b"")
        assert pool.idle == 0


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", b"abcd"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n3;x=y\r\nbcd\r\n0\r\nT: 1\r\n\r\n", b"abcd"),
        (b"HTTP/1.1 200 OK\r\n\r\nabcd", b"abcd"),
        (b"HTTP/1.0 200 OK\r\n\r\nabcd", b"abcd"),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nA: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
            b"a",
        ),
        (b"HTTP/1.1 204 OK\r\n\r\n", b""),
        (b"HTTP/1.1 304 OK\r\nContent-Length: 9\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 599 \xff\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
async def test_an_answer_is_read_to_its_end_however_it_is_delimited_and_split(wire: bytes, body: bytes) -> None:
    for size in (1, len(wire)):

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int = size) -> None:
            await read_head(reader)
            for at in range(0, len(wire), size):
                writer.write(wire[at : at + size])
                await writer.drain()
                await asyncio.sleep(0)

        async with upstream(script) as origin, pool_to(origin) as pool:
            assert await pumped(await ask(pool)) == body
        async with upstream(script) as origin, pool_to(origin) as pool:
            answer = await ask(pool)
            assert await answer.read(100) == body
            assert b"A" not in dict(answer.headers)


async def test_status_reason_and_headers_come_as_they_are() -> None:
    wire = b"HTTP/1.1 418 I'm \xe2\x98\x95\r\nx-B: 1 \r\nX-b: \r\nContent-Length: 0\r\n\r\n"
    async with upstream(always(wire)) as origin, pool_to(origin) as pool:
        answer = await ask(pool)
        assert (answer.status, answer.reason) == (418, b"I'm \xe2\x98\x95")
        assert answer.headers == [(b"x-B", b"1 "), (b"X-b", b""), (b"Content-Length", b"0")]
        assert answer.get(b"x-b") == b"1 "


async def test_a_head_answer_has_no_body_and_its_connection_is_used_again() -> None:
    async with upstream(always(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")) as origin, pool_to(origin) as pool:
        for _ in range(3):
            assert await (await ask(pool, b"HEAD")).read(10) == b""
        assert pool.connections == 1


@pytest.mark.parametrize(
    "wire",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 20 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 X\r\nContent-Length: 0\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"ICE/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\n\r\nRTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: %b" % (b"x" * 80_000),
        b"HTTP/1.1 200 OK\r\n%b\r\n" % (b"X: 1\r\n" * 300),
        b"HTTP/1.1 200 OK\r\nX: 1",
        b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 O\x00K\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
    ],
)
async def test_a_malformed_head_is_a_broken_answer(wire: bytes) -> None:
    async with upstream(always(wire, close=True)) as origin, pool_to(origin) as pool:
        with pytest.raises(AnswerBroken):
            await ask(pool)
        assert pool.idle == 0


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
async def test_a_cut_or_malformed_body_is_delivered_as_far_as_it_came(wire: bytes) -> None:
    async with upstream(always(wire, close=True)) as origin, pool_to(origin) as pool:
        pieces: list[bytes] = []
        with pytest.raises(AnswerBroken):
            await (await ask(pool)).pump(pieces.append)
        assert b"".join(pieces) == b"ab"
        with pytest.raises(AnswerBroken):
            await (await ask(pool)).read(10)


async def test_a_malformed_chunk_on_an_open_connection_is_noticed_at_once() -> None:
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    async with upstream(always(wire)) as origin, pool_to(origin) as pool:
        with pytest.raises(AnswerBroken, match="malformed"):
            await (await ask(pool)).read(10)


@pytest.mark.parametrize("endless", [b"Xy: 1\r\n" * 200_000, b"x" * 1_400_000])
async def test_an_answer_whose_trailers_are_endless_is_cut_behind_its_body(endless: bytes) -> None:
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (100_000, bytes(100_000))
    async with upstream(always(wire + endless)) as origin, pool_to(origin) as pool:
        pumped: list[bytes] = []
        with pytest.raises(AnswerBroken, match="mostly framing"):
            await (await ask(pool)).pump(pumped.append)
        assert b"".join(pumped) == bytes(100_000)


async def test_bytes_behind_an_answer_cost_the_connection_but_not_the_answer() -> None:
    for excess in (b"X", OK, b"HT"):
        async with upstream(always(OK + excess)) as origin, pool_to(origin) as pool:
            for _ in range(2):
                assert await (await ask(pool)).read(10) == b"ab"
                assert pool.idle == 0
    async with upstream(always(OK)) as origin, pool_to(origin) as pool:
        assert await (await ask(pool, b"HEAD")).read(10) == b""
        assert pool.idle == 0


async def test_bytes_that_nobody_asked_for_cost_an_idle_connection() -> None:
    written = asyncio.Event()

    async def unasked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK)
        await written.wait()
        writer.write(OK.replace(b"ab", b"XX"))
        assert await reader.read() == b""
        closed.set()

    closed = asyncio.Event()
    async with upstream(unasked) as origin, pool_to(origin) as pool, asyncio.timeout(PATIENCE_S):
        assert await (await ask(pool)).read(10) == b"ab"
        written.set()
        await closed.wait()
        assert pool.connections == 0


async def test_an_answer_larger_than_asked_for_can_still_be_pumped() -> None:
    body = b"0123456789" * 100_000
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with upstream(always(wire)) as origin, pool_to(origin) as pool:
        answer = await ask(pool)
        with pytest.raises(AnswerTooLarge) as caught:
            await answer.read(1000)
        assert caught.value.received + await pumped(answer) == body
        assert await (await ask(pool)).read(len(body)) == body
        assert pool.connections == 1


async def test_an_answer_nobody_takes_holds_upstream_back() -> None:
    body = b"x" * 16 * 2**20
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with upstream(always(wire)) as origin, pool_to(origin) as pool:
        answer = await ask(pool)
        await asyncio.sleep(0.05)
        assert answer.buffered_bytes < 600_000  # the bound and one read
        assert await pumped(answer) == body


async def test_a_sink_can_pause_the_answer() -> None:
    body = b"x" * 4 * 2**20
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    loop = asyncio.get_running_loop()
    received, pauses = 0, 0

    def sink(data: bytes) -> None:
        nonlocal received, pauses
        received += len(data)
        pauses += 1
        answer.pause()
        loop.call_soon(answer.resume)

    async with upstream(always(wire)) as origin, pool_to(origin) as pool:
        answer = await ask(pool)
        async with asyncio.timeout(PATIENCE_S):
            await answer.pump(sink)
    assert received == len(body)
    assert pauses > 4


async def test_what_a_sink_raises_comes_out_of_pump_and_ends_the_connection() -> None:
    def sink(data: bytes) -> None:
        raise ZeroDivisionError

    for wire in (OK, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"):
        async with upstream(always(wire)) as origin, pool_to(origin) as pool:
            answer = await ask(pool)
            with pytest.raises(ZeroDivisionError):
                await answer.pump(sink)
