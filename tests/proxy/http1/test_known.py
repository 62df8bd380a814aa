"""A head that was judged before is recognised, and nothing that differs from it but in its length."""

import asyncio
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import GatewayError
from gateway.proxy.http1.edge import Connection
from gateway.proxy.http1.known import KnownHeads
from gateway.proxy.http1.limits import Limits
from gateway.proxy.http1.reader import RequestReader
from gateway.proxy.http1.request import Request
from gateway.proxy.http1.server import Server
from tests.proxy.http1.wire import hello

Message = tuple[bytes, bytes, list[tuple[bytes, bytes]], int | None]


@pytest.fixture
def connection() -> Iterator[Connection]:
    loop = asyncio.new_event_loop()
    yield Connection(Server(hello), loop)
    loop.close()


def message(body: bytes, *fields: bytes, length: bytes | None = None) -> bytes:
    digits = b"%d" % len(body) if length is None else length
    lines = b"".join(field + b"\r\n" for field in (b"Host: a", *fields, b"Content-Length: " + digits))
    return b"POST /v1/chat/completions HTTP/1.1\r\n%b\r\n%b" % (lines, body)


def read(connection: Connection, known: KnownHeads, data: bytes) -> tuple[list[Message], str]:
    """What one read of a fresh connection is taken for: its complete requests, and the refusal behind them."""
    reader = RequestReader(Limits(), known, partial(Request, connection))
    refusal = ""
    request = reader.recognise(data)
    requests = [] if request is None else [request]
    if request is None:
        try:
            reader.feed(data)
        except GatewayError as error:
            refusal = error.code
        requests = [each for each in reader.requests if each.complete]
    return [(each.method, each.target, each.headers, each.length) for each in requests], refusal


def meet(connection: Connection, known: KnownHeads, data: bytes) -> None:
    """Read `data` as often as it takes to be remembered."""
    for _ in range(2):
        read(connection, known, data)


def knowing(connection: Connection, data: bytes) -> KnownHeads:
    known = KnownHeads(1 << 16)
    meet(connection, known, data)
    return known


def test_a_head_is_recognised_with_another_length(connection: Connection) -> None:
    known = knowing(connection, message(b"first"))
    second = message(b"the second")
    reader = RequestReader(Limits(), known, partial(Request, connection))
    request = reader.recognise(second)
    assert request is not None
    assert (request.length, dict(request.headers)[b"Content-Length"]) == (10, b"10")
    assert read(connection, known, second) == read(connection, KnownHeads(0), second)


@pytest.mark.parametrize(
    "other",
    [
        message(b"first", b"X: 1"),
        message(b"first", length=b"05"),
        message(b"first", length=b"+5"),
        message(b"first", length=b"5, 5"),
        message(b"first", b"Content-Length: 5"),
        message(b"first", b"Transfer-Encoding: chunked"),
        message(b"first", length=b"4"),
        message(b"first", length=b"6"),
        message(b"first") + b"G",
        message(b"first").replace(b"\r\n", b"\n"),
        message(b"first").replace(b"Host: a", b"Host: b"),
        message(b"first").replace(b"POST", b"GET", 1),
    ],
)
def test_whatever_else_differs_is_parsed_as_if_nothing_were_known(connection: Connection, other: bytes) -> None:
    known = knowing(connection, message(b"first"))
    assert read(connection, known, other) == read(connection, KnownHeads(0), other)


@given(
    st.lists(st.tuples(st.sampled_from([b"A: 1", b"B: 22", b"Content-Length: 3"]), st.binary(max_size=4)), max_size=6)
)
@settings(deadline=None, max_examples=200)
def test_what_is_known_never_changes_how_anything_is_read(messages: list[tuple[bytes, bytes]]) -> None:
    loop = asyncio.new_event_loop()
    connection, known = Connection(Server(hello), loop), KnownHeads(400)
    try:
        for field, body in messages:
            data = message(body, field)
            assert read(connection, known, data) == read(connection, KnownHeads(0), data)
    finally:
        loop.close()


@pytest.mark.parametrize("field", [b"Connection: close", b"Expect: 100-continue", b"Connection: Upgrade\r\nUpgrade: x"])
def test_a_head_that_ends_or_changes_its_connection_is_not_kept(connection: Connection, field: bytes) -> None:
    data = message(b"first", field)
    known = knowing(connection, data)
    assert RequestReader(Limits(), known, partial(Request, connection)).recognise(data) is None


def test_the_oldest_are_forgotten_beyond_the_bound(connection: Connection) -> None:
    known = KnownHeads(3 * len(message(b"")))
    heads = [message(b"first", b"N: %d" % number) for number in range(5)]
    for data in heads:
        meet(connection, known, data)
    recognised = [RequestReader(Limits(), known, partial(Request, connection)).recognise(data) for data in heads]
    assert [request is not None for request in recognised] == [False, False, False, True, True]


def test_heads_that_come_once_take_no_room(connection: Connection) -> None:
    known = knowing(connection, message(b"first"))
    for number in range(2000):
        read(connection, known, message(b"once", b"traceparent: %d" % number))
    assert RequestReader(Limits(), known, partial(Request, connection)).recognise(message(b"first")) is not None
