"""Mutated messages against the transport, with h11 as the judge. `python -m tests.proxy.http1.fuzz --seconds 3600`.

What the edge accepts, h11 must accept as the same requests; whatever comes, both sides must come to an end.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Iterator
from functools import partial

import h11
import msgspec
import uvloop

from gateway.core.errors import GatewayError
from gateway.proxy.http1.client import UpstreamFailed
from gateway.proxy.http1.edge import Connection
from gateway.proxy.http1.known import KnownHeads
from gateway.proxy.http1.limits import Limits
from gateway.proxy.http1.reader import RequestReader
from gateway.proxy.http1.request import Request
from gateway.proxy.http1.server import Server
from tests.proxy.http1.wire import Edge, echo, edge, hello, pool_to, upstream

REQUESTS = (
    b"GET /v1/models?a=b HTTP/1.1\r\nHost: api.openai.com\r\nAccept: */*\r\n\r\n",
    b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nX-A: b\r\n\r\nhello world",
    b"POST / HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nT: u\r\n\r\n",
    b"GET http://a/b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
    b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
)
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: u\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
    b"HTTP/1.0 304 Not Modified\r\nETag: a\r\n\r\n",
)
TOKENS = (
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b":", b";", b",", b"0", b"1", b"ffffffffffffffff", b"\x0b", b"\xff"),
    *(b"\r\n ", b"\r\n\r\n", b"0\r\n\r\n", b"Content-Length: 1\r\n", b"Content-Length: 0\r\n", b"chunked", b"HTTP/1.1"),
    *(b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:\tchunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
    *(
        b"Host: b\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\n",
        b"Upgrade: x\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(b"HTTP/1.0", b"HTTP/2.0", b"RTSP/1.0", b"CONNECT ", b"GET ", b"#", b"?", b"//", b"@", b'"', b"\\", b"+1", b"0x1"),
)


class Read(msgspec.Struct):
    """A request as one of the two parsers has read it."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


def messages(dice: random.Random, bases: tuple[bytes, ...]) -> Iterator[bytes]:
    """Endless streams of one to three messages, most of them damaged a little."""
    while True:
        stream = bytearray(b"".join(dice.choices(bases, k=dice.randint(1, 3))))
        for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 8))):
            at = dice.randrange(len(stream) + 1)
            to = min(len(stream), at + dice.choice((1, 1, 2, 8, 30)))
            match dice.randrange(5):
                case 0:
                    stream[at:at] = dice.choice(TOKENS)
                case 1:
                    stream[at:to] = b""
                case 2:
                    stream[at:to] = dice.choice(TOKENS)
                case 3:
                    stream[at:at] = stream[at:to]
                case _:
                    stream[at:to] = stream[at:to].swapcase()
        yield bytes(stream)


def pieces(dice: random.Random, data: bytes) -> list[bytes]:
    """`data`, split anywhere."""
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice((0, 0, 1, 2, 5, 20))))
    return [part for part in (data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)) if part]


def read_here(connection: Connection, known: KnownHeads, parts: list[bytes]) -> tuple[list[Read], str]:
    """The complete requests that the edge's reader makes of `parts`, and the refusal that ends them."""
    refusal = ""
    reader = RequestReader(Limits(), known, partial(Request, connection))
    requests: list[Request] = []
    try:
        for part in parts:
            request = reader.recognise(part)
            if request is not None:
                requests.append(request)
            else:
                reader.feed(part)
            requests += reader.requests
            reader.requests.clear()
    except GatewayError as error:
        refusal = error.code
    requests += reader.requests
    whole = [request for request in requests if request.complete]
    return [Read(r.method, r.target, r.headers, body_of(r)) for r in whole], refusal


def body_of(request: Request) -> bytes:
    """The body of a complete request, without a loop: it does not have to wait."""
    reading = request.read_body(1 << 30)
    try:
        reading.send(None)
    except StopIteration as end:
        body: bytes = end.value
        return body
    raise AssertionError("a complete body made its reader wait")


def read_by_h11(data: bytes, count: int) -> list[Read]:
    """The first `count` requests of `data` as h11 reads them; raises h11.RemoteProtocolError where it refuses.

    Empty lines before a request line are skipped, as RFC 9112 §2.2 asks for and h11 does not.
    """
    read: list[Read] = []
    while len(read) < count:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(data.lstrip(b"\r\n"))
        request = connection.next_event()
        assert isinstance(request, h11.Request), f"h11 wants more of {data!r}"
        body = b""
        while isinstance(event := connection.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage), f"h11 wants more of {data!r}"
        read.append(Read(request.method, request.target, list(request.headers.raw_items()), body))
        data = connection.trailing_data[0]
    return read


def same(here: Read, there: Read) -> bool:
    """Whether two readings are of one request. An absolute target is shortened here."""
    is_target = here.target == there.target or (here.target.startswith(b"/") and there.target.endswith(here.target[1:]))
    return here.method == there.method and is_target and plain(here) == plain(there) and here.body == there.body


def plain(read: Read) -> list[tuple[bytes, bytes]]:
    """Headers as h11 hands them out: no white space behind a value, transfer codings in lower case."""
    return [
        (name, value.strip(b" \t").lower() if name.lower() == b"transfer-encoding" else value.strip(b" \t"))
        for name, value in read.headers
    ]


def judge(connection: Connection, known: KnownHeads, parts: list[bytes]) -> int:
    """Compare one stream; returns how many requests both have read. Raises AssertionError where they differ."""
    data = b"".join(parts)
    here, refusal = read_here(connection, known, parts)
    whole, whole_refusal = read_here(connection, KnownHeads(0), [data])
    # What stands behind a chunked request in one read is not looked at: the client has to repeat it.
    assert whole == here[: len(whole)], f"another reading when split: {parts}"
    assert whole_refusal in ("", refusal), f"another refusal when split: {parts}: {refusal}, {whole_refusal}"
    try:
        there = read_by_h11(data, len(here))
    except h11.RemoteProtocolError as error:
        raise AssertionError(f"accepted here, refused by h11 ({error}): {data!r} as {here}") from error
    assert len(here) == len(there), data
    assert all(map(same, here, there)), f"read in two ways: {data!r} as {here} and {there}"
    return len(here)


async def settle_edge(running: Edge, parts: list[bytes]) -> None:
    """Send a stream to a real edge, and hang up: it must answer or close, and stay well."""
    reader, writer = await running.connect()
    try:
        for part in parts:
            if writer.transport.is_closing():
                break
            writer.write(part)
            await asyncio.sleep(0)
        if not writer.transport.is_closing():
            writer.write_eof()
        await reader.read()
    except OSError:
        pass
    finally:
        writer.close()


async def settle_answer(dice: random.Random) -> None:
    """Get a damaged answer from a real upstream: it must be read or fail."""
    parts = pieces(dice, next(messages(dice, ANSWERS)))

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0)

    async with upstream(script) as origin, pool_to(origin) as pool, asyncio.timeout(5):
        try:
            await (await pool.send(dice.choice((b"GET", b"HEAD", b"POST")), b"/", [], b"")).read(1 << 20)
        except UpstreamFailed:
            pass


async def fuzz(seconds: float, seed: int) -> None:
    dice = random.Random(seed)
    ends_at = time.monotonic() + seconds
    streams = requests = 0
    connection = Connection(Server(hello), asyncio.get_running_loop())
    known = KnownHeads(1 << 20)
    async with edge(echo) as running:
        for stream in messages(dice, REQUESTS):
            requests += judge(connection, known, pieces(dice, stream))
            streams += 1
            if streams % 50 == 0:
                async with asyncio.timeout(5):
                    await settle_edge(running, pieces(dice, stream))
                await settle_answer(dice)
                if time.monotonic() > ends_at:
                    break
        assert running.failures == []
    print(f"{streams} streams, {requests} requests read alike (seed {seed})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    options = parser.parse_args()
    uvloop.run(fuzz(options.seconds, options.seed))
