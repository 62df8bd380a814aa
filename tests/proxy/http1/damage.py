"""Endless messages for a parser to fail on: valid ones damaged a little, and heads built from lines that contradict."""

import random
from collections.abc import Iterator

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
    b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nX: 1\r\nx: 2 \r\nContent-Length: 0\r\n\r\n",
)
TOKENS = (
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b":", b";", b",", b"0", b"1", b"ffffffffffffffff", b"\x0b", b"\xff"),
    *(b"\r\n ", b"\r\n\r\n", b"0\r\n\r\n", b"Content-Length: 1\r\n", b"Content-Length: 0\r\n", b"chunked", b"HTTP/1.1"),
    *(b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:\tchunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
    *(b"Host: b\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Upgrade: x\r\n"),
    *(b"HTTP/1.0", b"HTTP/2.0", b"RTSP/1.0", b"CONNECT ", b"GET ", b"#", b"?", b"//", b"@", b'"', b"\\", b"+1", b"0x1"),
    *(b"Expect: 100-continue\r\n", b" 101 ", b" 000 ", b" 204 ", b"Trailer: x\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
)
REQUEST_LINES = (
    *(b"POST / HTTP/1.1", b"GET /a?b HTTP/1.1", b"POST / HTTP/1.0", b"POST http://a/b HTTP/1.1", b"OPTIONS * HTTP/1.1"),
    *(
        b"POST  / HTTP/1.1",
        b"POST / HTTP/1.1 ",
        b"POST /",
        b"post / HTTP/1.1",
        b"POST /#f HTTP/1.1",
        b"POST / HTTP/1.2",
    ),
)
STATUS_LINES = (
    *(
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 204 No",
        b"HTTP/1.1 304 No",
    ),
    *(b"HTTP/1.1 101 Up", b"HTTP/1.1 100 Go", b"HTTP/1.1 000 X", b"HTTP/1.1 2000 X", b"HTTP/2 200 OK", b"ICY 200 OK"),
)
LINES = (
    *(b"Content-Length: 5", b"content-length: 5", b"Content-Length: 6", b"Content-Length: 5, 5", b"Content-Length: +5"),
    *(
        b"Content-Length:5",
        b"Content-Length: 05",
        b"Content-Length: 5 ",
        b"Content-Length: 5 5",
        b"Content-Length: 0x5",
    ),
    *(
        b"Content-Length : 5",
        b" Content-Length: 5",
        b"Content-Length: -5",
        b"Content-Length: 5\x00",
        b"Content_Length: 5",
    ),
    *(b"Content-Length: \t5", b"Content-Length:", b"Content-Length: 18446744073709551621", b"Content-Length: 5;a"),
    *(b"Transfer-Encoding: chunked", b"TRANSFER-ENCODING: CHUNKED", b"Transfer-Encoding:\tchunked"),
    *(b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: chunked,"),
    *(b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked;a=b"),
    *(b"Transfer-Encoding : chunked", b"Transfer-Encoding:\r\n chunked", b'Transfer-Encoding: "chunked"'),
    *(b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding", b"X: 1\nTransfer-Encoding: chunked", b"X: 1\rY: 2"),
    *(b"Host: b", b"HOST: a", b"Host: a, b", b"Host:", b"X: 1", b"x: 2 ", b"X-\xc3\xa9: 1", b"X: \xc3\xa9", b": 1"),
    *(b"Connection: close", b"Connection: keep-alive", b"Connection: Content-Length", b"Connection: upgrade"),
    *(b"Upgrade: websocket", b"Upgrade: h2c", b"Expect: 100-continue", b"Trailer: Content-Length", b"TE: trailers"),
)
BODIES = (
    *(
        b"",
        b"hello",
        b"hello!",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"0\r\n\r\n",
        b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    *(
        b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5;a\r\nhello\r\n0\r\n\r\n",
    ),
    *(
        b"5;a=\n\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"00005\r\nhello\r\n000\r\n\r\n",
    ),
    *(
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    ),
)


def messages(dice: random.Random, valid: tuple[bytes, ...], starts: tuple[bytes, ...]) -> Iterator[bytes]:
    """Streams of one to three messages: `valid` ones, most of them damaged, or contradictory ones under `starts`."""
    while True:
        if dice.random() < 0.4:
            yield b"".join(contradiction(dice, starts) for _ in range(dice.choice((1, 1, 2))))
        else:
            yield damaged(dice, b"".join(dice.choices(valid, k=dice.randint(1, 3))))


def contradiction(dice: random.Random, starts: tuple[bytes, ...]) -> bytes:
    """A head of few lines that often say different things of its body."""
    start = starts[0] if dice.random() < 0.6 else dice.choice(starts)
    lines = [b"Host: a"] if dice.random() < 0.9 else []
    lines += dice.choices(LINES, k=dice.choice((0, 1, 1, 2, 2, 3)))
    dice.shuffle(lines)
    return b"\r\n".join([start, *lines, b"", dice.choice(BODIES)])


def damaged(dice: random.Random, message: bytes) -> bytes:
    stream = bytearray(message)
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
    return bytes(stream)


def pieces(dice: random.Random, data: bytes) -> list[bytes]:
    """`data`, split anywhere; now and then into single bytes."""
    if dice.random() < 0.02:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice((0, 0, 1, 2, 5, 20))))
    return [part for part in (data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)) if part]
