"""The transport's readings beside those of h11 and of aiohttp's own parser, the one in Python.

What is accepted here, both must accept as the same messages. They may accept more.
"""

import asyncio
from functools import partial

import h11
import msgspec
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParserPy, RawRequestMessage
from aiohttp.streams import StreamReader

from gateway.core.errors import GatewayError
from gateway.proxy.http1.edge import Connection
from gateway.proxy.http1.known import KnownHeads
from gateway.proxy.http1.limits import Limits
from gateway.proxy.http1.reader import RequestReader
from gateway.proxy.http1.request import Request

Fields = list[tuple[bytes, bytes]]


class Read(msgspec.Struct):
    """A request as one of the parsers has read it."""

    method: bytes
    target: bytes
    headers: Fields
    body: bytes


class ReadAnswer(msgspec.Struct):
    """An answer likewise."""

    status: int
    reason: bytes
    headers: Fields
    body: bytes


def judge(connection: Connection, known: KnownHeads, parts: list[bytes]) -> int:
    """Compare one stream; returns how many requests all have read. Raises AssertionError where they differ."""
    data = b"".join(parts)
    here, refusal = read_here(connection, known, parts)
    whole, whole_refusal = read_here(connection, KnownHeads(0), [data])
    # What stands behind a chunked request in one read is not looked at: the client has to repeat it.
    assert whole == here[: len(whole)], f"another reading when split: {parts}"
    assert whole_refusal in ("", refusal), f"another refusal when split: {parts}: {refusal}, {whole_refusal}"
    for name, read in (("h11", read_by_h11), ("aiohttp", read_by_aiohttp)):
        try:
            there = read(data, len(here))
        except (h11.RemoteProtocolError, HttpProcessingError) as error:
            raise AssertionError(f"accepted here, refused by {name} ({error}): {data!r} as {here}") from error
        assert len(here) == len(there), f"{name} wants more of {data!r}"
        assert all(map(same, here, there)), f"read in two ways: {data!r} as {here} and by {name} as {there}"
    return len(here)


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
        if not isinstance(request, h11.Request):
            break
        body = b""
        while isinstance(event := connection.next_event(), h11.Data):
            body += event.data
        if not isinstance(event, h11.EndOfMessage):
            break
        read.append(Read(request.method, request.target, list(request.headers.raw_items()), body))
        data = connection.trailing_data[0]
    return read


def read_by_aiohttp(data: bytes, count: int) -> list[Read]:
    """Likewise as aiohttp reads them; raises HttpProcessingError where it refuses.

    It is fed byte by byte, so that what it thinks of the rest does not matter. Where it would switch it begins anew.
    """
    parser = aiohttp_parser()
    read: list[tuple[RawRequestMessage, StreamReader]] = []
    for byte in data:
        if len(read) >= count and (not read or read[-1][1].is_eof()):
            break
        found, is_switched, _ = parser.feed_data(bytes([byte]))
        read += found
        if is_switched:
            parser = aiohttp_parser()
    return [
        Read(
            message.method.encode(),
            message.path.encode("utf-8", "surrogateescape"),
            list(message.raw_headers),
            b"".join(iter(payload.read_nowait, b"")),
        )
        for message, payload in read
        if payload.is_eof()
    ]


def aiohttp_parser() -> HttpRequestParserPy:
    loop = asyncio.get_running_loop()
    return HttpRequestParserPy(BaseProtocol(loop), loop, 1 << 16, 1 << 16, 128, 1 << 16, auto_decompress=False)


def judge_answer(method: bytes, data: bytes, read: ReadAnswer, *, is_closed: bool) -> None:
    """Raises AssertionError unless h11 makes the same of what was answered to `method`."""
    there = answer_by_h11(method, data, is_closed=is_closed)
    assert isinstance(there, ReadAnswer), f"accepted here, {there}: {data!r} to {method!r} as {read}"
    here = (read.status, read.reason, plain(read), read.body)
    assert here == (there.status, there.reason, plain(there), there.body), f"{data!r} as {read} and {there}"


def answer_by_h11(method: bytes, data: bytes, *, is_closed: bool) -> ReadAnswer | str:
    """The final answer in `data` as h11 reads it, or why it does not. Empty lines before a head are passed over."""
    data = data.lstrip(b"\r\n")
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    try:
        connection.receive_data(data)
        if is_closed:
            connection.receive_data(b"")
        answer = connection.next_event()
        if isinstance(answer, h11.InformationalResponse):
            return answer_by_h11(method, data.partition(b"\r\n\r\n")[2], is_closed=is_closed)
        if not isinstance(answer, h11.Response):
            return f"no answer to h11 ({answer})"
        body = b""
        while isinstance(event := connection.next_event(), h11.Data):
            body += event.data
        if not isinstance(event, h11.EndOfMessage):
            return f"incomplete to h11 ({event})"
    except h11.RemoteProtocolError as error:
        return f"refused by h11 ({error})"
    return ReadAnswer(answer.status_code, answer.reason, list(answer.headers.raw_items()), body)


def same(here: Read, there: Read) -> bool:
    """Whether two readings are of one request. An absolute target is shortened here."""
    is_target = here.target == there.target or (here.target.startswith(b"/") and there.target.endswith(here.target[1:]))
    return here.method == there.method and is_target and plain(here) == plain(there) and here.body == there.body


def plain(read: Read | ReadAnswer) -> Fields:
    """Headers as h11 hands them out: no white space behind a value, transfer codings in lower case."""
    return [
        (name, value.strip(b" \t").lower() if name.lower() == b"transfer-encoding" else value.strip(b" \t"))
        for name, value in read.headers
    ]
