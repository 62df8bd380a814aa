"""One request is never taken for two, nor two for one: what leaves room for that is refused, with all behind it."""

import pytest

from gateway.core.errors import GatewayError
from gateway.proxy.http1.server import Request
from tests.proxy.http1.wire import HOST, echo, edge, hello, refused

INNER = b"GET /inner HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKS = b"0\r\n\r\n" + INNER

FRAMINGS = {
    "CL.TE": [b"Content-Length: %d" % len(CHUNKS), b"Transfer-Encoding: chunked"],
    "TE.CL": [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    "TE.CL in other cases": [b"TRANSFER-encoding: CHUNKED", b"content-LENGTH: 5"],
    "TE.TE with an unknown one": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"],
    "TE.TE with an unknown one first": [b"Transfer-Encoding: x", b"Transfer-Encoding: chunked"],
    "TE.TE twice": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    "TE.TE identity": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
    "TE list": [b"Transfer-Encoding: chunked, identity"],
    "TE with a parameter": [b"Transfer-Encoding: chunked;a=b"],
    "TE with a prefix": [b"Transfer-Encoding: xchunked"],
    "TE quoted": [b'Transfer-Encoding: "chunked"'],
    "TE empty": [b"Transfer-Encoding:"],
    "TE with a comma": [b"Transfer-Encoding: ,chunked"],
    "TE folded": [b"Transfer-Encoding:\r\n chunked"],
    "TE behind a space": [b"Transfer-Encoding : chunked"],
    "TE on a folded line": [b"X: 1\r\n Transfer-Encoding: chunked"],
    "TE behind a bare LF": [b"X: 1\nTransfer-Encoding: chunked"],
    "TE behind a bare CR": [b"X: 1\rTransfer-Encoding: chunked"],
    "TE behind NUL": [b"Transfer-Encoding: \x00chunked"],
    "TE with a byte behind": [b"Transfer-Encoding: chunked\xa0"],
    "CL.CL": [b"Content-Length: 5", b"Content-Length: 0"],
    "CL.CL in other cases": [b"Content-Length: 5", b"content-length: 5"],
    "CL list": [b"Content-Length: 5,5"],
    "CL list with a space": [b"Content-Length: 5, 5"],
    "CL signed": [b"Content-Length: +5"],
    "CL negative": [b"Content-Length: -5"],
    "CL of two numbers": [b"Content-Length: 5 5"],
    "CL behind a space": [b"Content-Length : 5"],
    "CL on the first line, indented": [b" Content-Length: 5"],
    "CL with letters": [b"Content-Length: 5a"],
    "CL with a full stop": [b"Content-Length: 5.0"],
    "CL with an underscore": [b"Content-Length: 5_0"],
    "CL in other digits": [b"Content-Length: \xd9\xa5"],
    "CL beyond 64 bits": [b"Content-Length: 18446744073709551621"],
    "CL folded": [b"Content-Length:\r\n 5"],
}


@pytest.mark.parametrize("lines", FRAMINGS.values(), ids=FRAMINGS.keys())
@pytest.mark.parametrize("is_behind_another", [False, True])
async def test_a_body_of_doubtful_length_is_refused_and_nothing_behind_it_is_served(
    lines: list[bytes], is_behind_another: bool
) -> None:
    doubtful = b"\r\n".join([b"POST / HTTP/1.1", b"Host: a", *lines, b"", CHUNKS])
    before = b"GET / HTTP/1.1\r\n%b\r\n" % HOST if is_behind_another else b""
    async with edge(hello) as running:
        answer = await running.say(before + doubtful)
        if is_behind_another:
            answer = answer.partition(b"hello")[2]
        assert refused(answer)[0] in (400, 501)
        assert running.server.requests == is_behind_another


async def test_a_length_of_odd_but_sound_digits_is_that_number() -> None:
    async with edge(echo) as running:
        for length in (b"3", b"03", b"  3", b"3  ", b"\t3"):
            answer = await running.say(
                b"POST / HTTP/1.1\r\n%bConnection: close\r\nContent-Length:%b\r\n\r\nabc%b" % (HOST, length, INNER)
            )
            assert answer.endswith(b'"body":"abc"}')
        assert running.server.requests == 5


@pytest.mark.parametrize("bad", [b"GARBAGE\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"])
async def test_behind_a_refused_request_nothing_is_served(bad: bytes) -> None:
    async with edge(hello) as running:
        assert refused(await running.say(bad, INNER, INNER))[0] == 400
        assert running.server.requests == 0


async def test_behind_a_broken_body_nothing_is_served() -> None:
    paths: list[bytes] = []

    async def note(request: Request) -> None:
        paths.append(request.path)
        await echo(request)

    async with edge(note) as running:
        answer = await running.say(
            b"POST /outer HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\nxyz\r\n" % HOST + INNER, INNER
        )
    assert refused(answer)[0] == 400
    assert paths == [b"/outer"]


async def test_a_body_is_never_read_as_a_request() -> None:
    async with edge(echo) as running:
        answer = await running.say(
            b"POST / HTTP/1.1\r\n%bContent-Length: %d\r\nConnection: close\r\n\r\n" % (HOST, len(INNER)) + INNER
        )
        assert answer.count(b"HTTP/1.1 200") == running.server.requests == 1


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS"])
async def test_a_body_of_a_method_that_needs_none_is_a_body_too(method: bytes) -> None:
    async with edge(hello) as running:
        await running.say(
            b"%b / HTTP/1.1\r\n%bContent-Length: %d\r\nConnection: close\r\n\r\n" % (method, HOST, len(INNER)) + INNER
        )
        assert running.server.requests == 1


async def test_who_expects_to_be_told_to_go_on_is_not_told_when_the_body_is_too_large() -> None:
    async def read_little(request: Request) -> None:
        try:
            await request.read_body(10)
        except GatewayError as error:
            request.respond(error.status, b"", error.body())

    async with edge(read_little) as running:
        answer = await running.say(
            b"POST / HTTP/1.1\r\n%bExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n" % HOST
        )
    assert refused(answer)[0] == 413


async def test_http10_is_never_told_to_go_on() -> None:
    async with edge(hello) as running:
        answer = await running.say(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", b"a", b"b")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
