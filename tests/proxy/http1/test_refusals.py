"""What the edge refuses, with which status, and that no handler hears of it."""

import pytest

from gateway.proxy.http1.server import Limits
from tests.proxy.http1.wire import echo, edge, refused

BAD = {
    "bare LF after the request line": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "bare LF after a header": b"GET / HTTP/1.1\r\nHost: a\n\r\n",
    "obs-fold": b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "space before the first name": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
    "DEL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n",
    "CR in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n",
    "high byte in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX\xff: 1\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
    "malformed Host": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "Host with a user": b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "Host with a name for a port": b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "Host with two ports": b"GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n",
    "absolute target without a host": b"GET http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute target with a user": b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "CR before the request line": b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "LF before the request line": b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "trailing space": b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
    "RTSP": b"GET / RTSP/1.0\r\nHost: a\r\n\r\n",
    "lower-case method": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"FROB / HTTP/1.1\r\nHost: a\r\n\r\n",
    "relative target": b"GET x HTTP/1.1\r\nHost: a\r\n\r\n",
    "star target": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment": b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "high byte in target": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab in target": b"GET /\t HTTP/1.1\r\nHost: a\r\n\r\n",
    "length and chunked": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked and length": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "one length twice": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na",
    "signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
    "hexadecimal length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na",
    "endless length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\na",
    "empty length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\na",
    "chunked twice": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two types": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\ncontent-type: a/c\r\n\r\n",
    "two agents": b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: a\r\nUser-Agent: a\r\n\r\n",
    "vertical tab before chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("sent", BAD.values(), ids=BAD.keys())
async def test_what_is_malformed_is_refused_and_reaches_no_handler(sent: bytes) -> None:
    async with edge(echo) as running:
        assert refused(await running.say(sent)) == (400, "invalid_request")
        assert running.server.requests == 0


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"1\nx\r\n0\r\n\r\n",
        b"1\r\nx\n0\r\n\r\n",
        b"1\r\nxx\r\n0\r\n\r\n",
        b"1 \r\nx\r\n0\r\n\r\n",
        b"1 ;a\r\nx\r\n0\r\n\r\n",
        b"0x1\r\nx\r\n0\r\n\r\n",
        b"-1\r\nx\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\n",
        b"1;\n\r\nx\r\n0\r\n\r\n",
        b"1;a=\x00\r\nx\r\n0\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nX: 1\n\r\n",
        b"1;" + b"x" * 70_000,
        b"".join(b"1;%b\r\nx\r\n" % (b"x" * 1000) for _ in range(100)),
        b"0\r\n" + b"X: 1\r\n" * 30_000,
        b"%x\r\n%b\r\n0\r\n" % (100_000, bytes(100_000)) + b"Xy: 1\r\n" * 150_000,
        b"%x\r\n%b\r\n0\r\n" % (100_000, bytes(100_000)) + b"x" * 1_000_000,
    ],
)
async def test_a_malformed_or_padded_chunked_body_is_refused(body: bytes) -> None:
    async with edge(echo) as running:
        pieces = [body[at : at + 8000] for at in range(0, len(body), 8000)]
        assert refused(await running.say(CHUNKED, *pieces))[0] == 400


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: a miracle\r\n\r\n", 417),
        (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 40_000), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b" % (b"x" * 40_000), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * 40_000), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"X: 1\r\n" * 200), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n%b" % (b"X: 1\r\n" * 200), 431),  # though its end is still to come
    ],
)
async def test_what_is_not_offered_is_refused_by_its_own_status(sent: bytes, status: int) -> None:
    async with edge(echo) as running:
        assert refused(await running.say(sent))[0] == status
        assert running.server.requests == 0


async def test_a_large_head_in_small_pieces_is_refused_too() -> None:
    async with edge(echo, Limits(sweep_s=0.02, head_bytes_max=1000)) as running:
        assert refused(await running.say(b"GET / HTTP/1.1\r\nHost: a\r\nX: ", *[b"x" * 100] * 12))[0] == 431


@pytest.mark.parametrize(
    "trailers", [b"Host: b\r\nHost: c\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"content-length: 1\r\n"]
)
async def test_trailers_that_could_be_read_as_part_of_a_head_are_refused(trailers: bytes) -> None:
    async with edge(echo) as running:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        sent = head + b"1\r\n!\r\n0\r\n" + trailers + b"\r\n"
        assert refused(await running.say(sent)) == (400, "invalid_request")
