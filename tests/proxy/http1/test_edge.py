"""What the edge makes of bytes: requests as received, refusals as they are meant, answers byte by byte."""

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.core.errors import GatewayError
from gateway.proxy.http1.headers import encode
from gateway.proxy.http1.server import ClientGone, Limits, Request
from tests.patience import PATIENCE_S
from tests.proxy.http1.wire import HOST, QUICK, Edge, echo, edge, hang_up, hello, refused

CLOSE = b"Connection: close\r\n"
HELLO = b"HTTP/1.1 200 OK\r\nX-Path: %b\r\nContent-Length: 5\r\n%b\r\nhello"


def understood(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    seen: dict[str, Any] = msgspec.json.decode(body)
    return seen


async def test_a_request_is_understood_as_it_was_sent() -> None:
    async with edge(echo) as running:
        answer = await running.say(
            b"POST /v1/x%2F?a=%20&b? HTTP/1.1\r\nhOsT: a\r\nX-Twice: 1\r\nx-twice:  2\xff\t \r\nX-Empty:\r\n"
            b"Content-Length: 3\r\nConnection: close\r\n\r\nabc"
        )
    seen = understood(answer)
    assert seen["target"] == "/v1/x%2F?a=%20&b?"
    assert seen["headers"][:4] == [["hOsT", "a"], ["X-Twice", "1"], ["x-twice", "2\xff\t "], ["X-Empty", ""]]
    assert seen["body"] == "abc"


@pytest.mark.parametrize(
    ("target", "forwarded"),
    [
        ("/", "/"),
        ("//a//b", "//a//b"),
        ("/v1/models?", "/v1/models?"),
        ("http://gateway:8080/v1/models?a=b", "/v1/models?a=b"),
        ("HTTPS://gateway?a", "/?a"),
        ('/"<>\\^`{|}', '/"<>\\^`{|}'),
    ],
)
async def test_a_target_keeps_its_bytes(target: str, forwarded: str) -> None:
    async with edge(echo) as running:
        seen = understood(await running.say(b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (target.encode(), CLOSE)))
    assert seen["target"] == forwarded


async def test_a_chunked_body_arrives_without_its_chunks_extensions_and_trailers() -> None:
    async with edge(echo) as running:
        answer = await running.say(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n",
            b"3;x=y\r\nab",
            b"c\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n",
        )
    seen = understood(answer)
    assert seen["body"] == "abcde"
    assert "X-Trailer" not in dict(seen["headers"])


async def test_requests_of_one_connection_are_answered_in_order() -> None:
    release = asyncio.Event()

    async def slow_first(request: Request) -> None:
        if request.path == b"/1":
            await release.wait()
        request.respond(200, encode([(b"X-Path", request.path)]), b"hello")
        if request.path == b"/2":
            release.set()

    async with edge(slow_first) as running:
        release.set()
        answer = await running.say(
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HT",
            b"TP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        assert running.server.requests == 3
    assert answer == HELLO % (b"/1", b"") + HELLO % (b"/2", b"") + HELLO % (b"/3", CLOSE)


async def test_pipelined_bytes_wait_for_the_answer_before_them() -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def stepwise(request: Request) -> None:
        (first if request.path == b"/1" else second).set()
        if request.path == b"/1":
            await proceed.wait()
        await hello(request)

    proceed = asyncio.Event()
    async with edge(stepwise, Limits(sweep_s=0.02, request_buffer_bytes_max=100)) as running:
        reader, writer = await running.connect()
        writer.write(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        await first.wait()
        body = b"x" * 300_000
        writer.write(b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), CLOSE, body))
        assert not second.is_set()
        proceed.set()
        assert await reader.read() == HELLO % (b"/1", b"") + HELLO % (b"/2", CLOSE)
        await hang_up(writer)


async def test_a_pipelined_body_that_goes_on_during_the_answer_before_it_arrives_whole_and_in_order() -> None:
    proceed, second = asyncio.Event(), asyncio.Event()

    async def slow_first(request: Request) -> None:
        if request.path == b"/1":
            await proceed.wait()
        else:
            second.set()
        await echo(request)

    async with edge(slow_first) as running, asyncio.timeout(PATIENCE_S):
        reader, writer = await running.connect()
        head = b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n%b\r\n" % CLOSE
        writer.write(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" + head + b"ab")
        while not running.server.running:
            await asyncio.sleep(0)
        writer.write(b"cd")
        await asyncio.sleep(0.05)  # nothing tells that it has been read
        proceed.set()
        await second.wait()
        writer.write(b"ef")
        answers = await reader.read()
        await hang_up(writer)
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert understood(b"HTTP" + answers.split(b"HTTP")[-1])["body"] == "abcdef"


async def test_too_many_requests_in_one_read_are_cut_after_those_that_are_answered() -> None:
    async with edge(hello, Limits(sweep_s=0.02, pipelined_max=2)) as running:
        answer = await running.say(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" * 5)
    assert answer == HELLO % (b"/1", b"") + HELLO % (b"/1", CLOSE)


async def test_a_malformed_request_behind_a_good_one_is_refused_after_its_answer() -> None:
    async with edge(hello) as running:
        answer = await running.say(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGARBAGE\r\n\r\n")
    expected = HELLO % (b"/1", b"")
    assert answer.startswith(expected)
    assert refused(answer.removeprefix(expected)) == (400, "invalid_request")


async def test_what_stands_before_a_head_does_not_count_against_it() -> None:
    async with edge(hello, Limits(sweep_s=0.02, head_bytes_max=1000)) as running:
        answer = await running.say(
            b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000 + b"GET /2 HTT",
            b"P/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
    assert answer == HELLO % (b"/1", b"") + HELLO % (b"/2", CLOSE)


async def test_an_upgrade_is_not_taken_and_its_body_is_a_body() -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    for framing, body in (
        (b"Content-Length: %d" % len(smuggled), smuggled),
        (b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(smuggled), smuggled)),
    ):
        async with edge(echo) as running:
            answer = await running.say(
                b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n%b\r\n\r\n" % framing,
                body[:5],
                body[5:],
            )
            assert running.server.requests == 1
        assert understood(answer)["body"] == smuggled.decode()


async def test_an_upgrade_without_a_body_is_followed_by_the_next_request() -> None:
    async with edge(hello) as running:
        answer = await running.say(
            b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            b"GET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
    assert answer == HELLO % (b"/1", b"") + HELLO % (b"/2", CLOSE)


async def test_continue_is_said_when_the_body_is_wanted() -> None:
    async with edge(hello) as running:
        reader, writer = await running.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n%b\r\n" % CLOSE)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ab")
        assert await reader.read() == HELLO % (b"/", CLOSE)
        await hang_up(writer)


async def test_continue_is_not_said_to_a_client_that_has_left() -> None:
    handled = asyncio.Event()

    async def wait_and_read(request: Request) -> None:
        left = asyncio.Event()
        request.on_gone(left.set)
        reached.set()
        await left.wait()
        await asyncio.sleep(0)  # until the transport is closed, too
        with pytest.raises(ClientGone):
            await request.read_body(10)
        handled.set()

    reached = asyncio.Event()
    async with edge(wait_and_read) as running, asyncio.timeout(PATIENCE_S):
        _, writer = await running.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        await reached.wait()
        writer.transport.abort()
        await handled.wait()
    assert running.failures == []


async def test_continue_is_not_said_when_the_body_is_refused_or_there_already() -> None:
    async def too_large(request: Request) -> None:
        request.respond(413, b"", b"")

    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
    async with edge(too_large) as running:
        refusal = await running.say(head + b"\r\n")
    assert refusal.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in refusal
    async with edge(hello) as running:
        assert await running.say(head + CLOSE + b"\r\nab") == HELLO % (b"/", CLOSE)


async def test_a_body_over_the_bound_is_refused_before_it_is_read() -> None:
    async def small(request: Request) -> None:
        await echo_within(request, 10)

    async with edge(small) as running:
        for framing, body in (
            (b"Content-Length: 1000000", b"x" * 1_000_000),
            (b"Transfer-Encoding: chunked", b"f4240\r\n" + b"x" * 1_000_000),
        ):
            answer = await running.say(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing, body)
            assert refused(answer) == (413, "request_too_large")


async def echo_within(request: Request, bytes_max: int) -> None:
    try:
        request.respond(200, b"", await request.read_body(bytes_max))
    except GatewayError as error:
        request.respond(error.status, b"", error.body())


async def test_a_slow_head_gets_408_and_an_idle_connection_is_just_closed() -> None:
    limits = Limits(sweep_s=0.02, head_timeout_s=0.05, keepalive_timeout_s=0.05)
    async with edge(hello, limits) as running:
        assert refused(await running.say(b"GET / HTTP/1.1\r\nHos")) == (408, "request_timeout")
        assert await running.say(b"") == b""
        assert await running.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == HELLO % (b"/", b"")


async def test_a_slow_body_gets_408() -> None:
    async with edge(echo, Limits(sweep_s=0.02, body_idle_timeout_s=0.05)) as running:
        answer = await running.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    assert refused(answer) == (408, "request_timeout")


async def test_http10_is_spoken_to_those_who_speak_it() -> None:
    async def stream(request: Request) -> None:
        request.start(200, b"OK", b"", length=None)
        request.write(b"ab")
        request.end()

    async with edge(stream) as running:
        assert await running.say(b"GET / HTTP/1.0\r\n\r\n") == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nab"
    async with edge(hello) as running:
        answer = await running.say(b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n")
    assert answer == HELLO % (b"/1", b"Connection: keep-alive\r\n") + HELLO % (b"/2", CLOSE)


async def get(running: Edge, method: bytes = b"GET") -> bytes:
    return await running.say(b"%b / HTTP/1.1\r\n%b%b\r\n" % (method, HOST, CLOSE))


async def test_a_streamed_answer_is_chunked_and_one_of_known_length_is_not() -> None:
    async def stream(request: Request) -> None:
        request.start(201, b"Fine by me", encode([(b"A", b"1"), (b"a", b"2")]), length=None)
        request.write(b"x" * 20)
        request.write(b"")
        await asyncio.sleep(0)
        request.write(b"yz")
        request.end()

    async def sized(request: Request) -> None:
        request.start(200, b"", b"", length=4)
        request.write(b"ab")
        request.write(b"cd")
        request.end()

    async with edge(stream) as running:
        answer = await get(running)
    head = b"HTTP/1.1 201 Fine by me\r\nA: 1\r\na: 2\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert answer == head + b"14\r\n" + b"x" * 20 + b"\r\n2\r\nyz\r\n0\r\n\r\n"
    async with edge(sized) as running:
        assert await get(running) == b"HTTP/1.1 200 \r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd"


async def test_head_204_and_304_have_no_body() -> None:
    async def answer_as_asked(request: Request) -> None:
        status = {b"PUT": 204, b"DELETE": 304}.get(request.method, 200)
        request.start(status, b"X", b"", length=None if status == 204 else 7)
        request.write(b"ignored")
        request.end()

    async with edge(answer_as_asked) as running:
        sized = b"Content-Length: 7\r\nConnection: close\r\n\r\n"
        assert await get(running, b"HEAD") == b"HTTP/1.1 200 X\r\n" + sized
        assert await get(running, b"DELETE") == b"HTTP/1.1 304 X\r\n" + sized
        assert await get(running, b"PUT") == b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n"
    async with edge(hello) as running:
        answer = await running.say(
            b"HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
    assert answer == (HELLO % (b"/1", b"")).removesuffix(b"hello") + HELLO % (b"/2", CLOSE)


async def test_an_aborted_answer_is_seen_to_be_cut_with_what_was_delivered() -> None:
    async def cut(request: Request) -> None:
        request.start(200, b"OK", b"", length=None)
        request.write(b"ab")
        request.abort()

    async with edge(cut) as running:
        assert (await get(running)).endswith(b"\r\n\r\n2\r\nab\r\n")
        with pytest.raises(ConnectionResetError):
            await running.say(b"GET / HTTP/1.0\r\n\r\n")


async def test_an_answer_shorter_than_declared_is_cut_and_a_longer_one_is_an_error() -> None:
    async def short(request: Request) -> None:
        request.start(200, b"OK", b"", length=3)
        request.write(b"ab")
        request.end()

    async def long(request: Request) -> None:
        request.start(200, b"OK", b"", length=1)
        request.write(b"ab")

    async with edge(short) as running:
        assert (await get(running)).endswith(b"Content-Length: 3\r\nConnection: close\r\n\r\nab")
    async with edge(long) as running:
        assert (await get(running)).endswith(b"Content-Length: 1\r\nConnection: close\r\n\r\n")
        assert isinstance(running.failures[0], ValueError)


async def test_a_failing_handler_is_reported_and_answers_500() -> None:
    async def fail(request: Request) -> None:
        if request.method == b"PUT":
            request.start(200, b"OK", b"", length=None)
        if request.method == b"POST":
            return
        raise ZeroDivisionError

    async with edge(fail) as running:
        assert refused(await get(running)) == (500, "gateway_error")
        assert refused(await get(running, b"POST")) == (500, "gateway_error")
        assert (await get(running, b"PUT")).endswith(b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
    assert [type(error).__name__ for error in running.failures] == [
        "ZeroDivisionError",
        "NoAnswer",
        "ZeroDivisionError",
    ]


async def test_a_header_that_would_split_the_answer_is_an_error() -> None:
    async def split(request: Request) -> None:
        request.respond(200, encode([(b"X", b"1\r\nSet-Cookie: a")]), b"")

    async with edge(split) as running:
        answer = await get(running)
    assert refused(answer) == (500, "gateway_error")
    assert b"Set-Cookie" not in answer


async def test_connections_beyond_the_bound_are_closed() -> None:
    async with edge(hello, Limits(sweep_s=0.02, connections_max=1)) as running:
        _, writer = await running.connect()
        with pytest.raises((ConnectionResetError, AssertionError)):
            assert await get(running)
        await hang_up(writer)


async def test_requests_are_counted_and_the_default_limits_are_written_out() -> None:
    async with edge(hello, QUICK) as running:
        async with asyncio.timeout(PATIENCE_S):
            await get(running)
            await get(running)
        assert running.server.requests == 2
