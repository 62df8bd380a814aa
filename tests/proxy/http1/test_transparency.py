"""A bare relay between both sides: what leaves equals what came, to the byte, but for what each side frames."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.patience import PATIENCE_S
from tests.proxy.http1.relay import BareRelay
from tests.proxy.http1.wire import Edge, Script, edge, hang_up, pool_to, read_head, upstream

EVERY_BYTE = bytes(range(256)) * 3
FIELDS = (
    b"X-B: 1\r\nx-a:2\r\nX-b: 3  \t\r\nX-A:   4\r\nX-Empty:\r\nX-Latin: \xe9\xff\r\nx_y!#$%&'*+.^`|~: \t5\t6\r\n"
    b"Set-Cookie: a=1\r\nset-cookie: b=2\r\nX-B: 1\r\n"
)
WRITTEN = FIELDS.replace(b"x-a:2", b"x-a: 2").replace(b"X-A:   4", b"X-A: 4").replace(b": \t5", b": 5")
WRITTEN = WRITTEN.replace(b"X-Empty:", b"X-Empty: ")


class Far:
    """An upstream that keeps the requests it got and sends `answer` to each."""

    def __init__(self, answer: bytes, body_bytes: int, *, is_closed: bool) -> None:
        self.heard: list[bytes] = []
        self._answer = answer
        self._body_bytes = body_bytes
        self._is_closed = is_closed

    async def script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            self.heard.append(head + await reader.readexactly(self._body_bytes))
            writer.write(self._answer)
            if self._is_closed:
                return


@asynccontextmanager
async def relayed(script: Script) -> AsyncIterator[tuple[Edge, bytes]]:
    """An edge that relays to `script`; and the Host line that the upstream must get."""
    async with upstream(script) as origin, pool_to(origin) as pool, edge(BareRelay(pool)) as running:
        yield running, b"Host: %b\r\n" % origin.removeprefix("http://").encode()
        assert running.failures == []


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "target", [b"/v1/x?", b"/v1/x??a=%zz&&=;", b"//a/../b/./", b'/"<>\\^`{|}?[]', b"/?x=%00%c3%28"]
)
async def test_a_request_goes_on_as_it_came(target: bytes) -> None:
    far = Far(OK, len(EVERY_BYTE), is_closed=False)
    async with relayed(far.script) as (running, host):
        await running.say(
            b"POST %b HTTP/1.1\r\nHost: a\r\n%bConnection: close, X-Hop\r\nX-Hop: 1\r\nContent-Length: %d\r\n\r\n%b"
            % (target, FIELDS, len(EVERY_BYTE), EVERY_BYTE)
        )
    assert far.heard == [
        b"POST %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (target, WRITTEN, host, len(EVERY_BYTE), EVERY_BYTE)
    ]


GET = b"GET /v1/x HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
EVENTS = b"Content-Type: text/event-stream\r\n"


@pytest.mark.parametrize(
    "status", [b"200 OK", b"200 ", b"299 I'm a \xe2\x98\x95, \x09 too  ", b"404 not found", b"599 X"]
)
@pytest.mark.parametrize("is_closed", [False, True])
async def test_an_answer_comes_back_as_it_was(status: bytes, is_closed: bool) -> None:
    framing = b"" if is_closed else b"Content-Length: %d\r\n" % len(EVERY_BYTE)
    far = Far(b"HTTP/1.1 %b\r\n%b%b\r\n%b" % (status, FIELDS, framing, EVERY_BYTE), 0, is_closed=is_closed)
    async with relayed(far.script) as (running, _):
        answer = await running.say(GET)
    length = b"Content-Length: %d\r\n" % len(EVERY_BYTE)
    assert answer == b"HTTP/1.1 %b\r\n%b%bConnection: close\r\n\r\n%b" % (status, WRITTEN, length, EVERY_BYTE)


async def test_a_chunked_stream_comes_back_byte_for_byte_in_chunks_of_ours() -> None:
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (EVERY_BYTE, b"\r\n", b"0\r\n\r\n"))
    far = Far(
        b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % (EVENTS, chunks), 0, is_closed=False
    )
    async with relayed(far.script) as (running, _):
        head, _, body = (await running.say(GET)).partition(b"\r\n\r\n")
    assert head == b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\nConnection: close" % EVENTS
    assert unchunked(body) == EVERY_BYTE + b"\r\n" + b"0\r\n\r\n"


def unchunked(body: bytes) -> bytes:
    content = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if not int(size, 16):
            assert body == b"\r\n"
            return content
        content += body[: int(size, 16)]
        assert body[int(size, 16) :].startswith(b"\r\n")
        body = body[int(size, 16) + 2 :]


@pytest.mark.parametrize(
    ("answer", "relayed_as"),
    [
        (b"HTTP/1.1 204 No\r\nX: 1\r\n\r\n", b"HTTP/1.1 204 No\r\nX: 1\r\n"),
        (b"HTTP/1.1 304 Same\r\nETag: a\r\n\r\n", b"HTTP/1.1 304 Same\r\nETag: a\r\nConnection: close\r\n\r\n"),
        (b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Hint\r\nX: 1\r\n\r\n" + OK, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
        (
            b"HTTP/1.1 426 Upgrade\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 426 Upgrade\r\n",
        ),
    ],
)
async def test_an_answer_without_a_body_comes_back_without_one(answer: bytes, relayed_as: bytes) -> None:
    far = Far(answer, 0, is_closed=False)
    async with relayed(far.script) as (running, _):
        got = await running.say(GET)
    assert got.startswith(relayed_as)
    assert got.count(b"HTTP/1.1 ") == 1
    assert got.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00",
        b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 99 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_a_malformed_answer_is_noticed_while_its_connection_stays_open(answer: bytes) -> None:
    async with relayed(Far(answer, 0, is_closed=False).script) as (running, _), asyncio.timeout(PATIENCE_S):
        got = await running.say(GET)
    assert got == b"" or got.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    "chunk", [b"zz\r\n", b"2\nab", b"2\r\nabX", b"-1\r\n", b"fffffffffffffffff\r\n", b"2 \r\nab\r\n"]
)
async def test_a_stream_with_a_malformed_chunk_is_seen_to_be_cut_behind_what_came(chunk: bytes) -> None:
    start = b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" % EVENTS
    async with relayed(Far(start + chunk, 0, is_closed=False).script) as (running, _), asyncio.timeout(PATIENCE_S):
        got = await running.say(GET)
    assert b"hello" in got
    assert not got.endswith(b"0\r\n\r\n")


async def test_a_head_request_comes_back_with_the_length_and_no_body() -> None:
    far = Far(b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 0\r\n\r\n", 0, is_closed=False)
    async with relayed(far.script) as (running, _):
        reader, writer = await running.connect()
        for _ in range(2):
            writer.write(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await read_head(reader) == b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 0\r\n\r\n"
        await hang_up(writer)
