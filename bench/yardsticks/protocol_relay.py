"""What Python can do at best: a bare relay of two `asyncio.Protocol`s on httptools and uvloop, with no error handling.

A lower bound for any gateway written so. `python -m … PORT UPSTREAM_PORT`.
"""

import asyncio
import contextlib
import signal
import sys
from collections import deque
from typing import cast

import httptools
import uvloop

HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"host", b"te", b"upgrade"})
Header = tuple[bytes, bytes]


def kept(headers: list[Header]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers if header[0].lower() not in HOP_BY_HOP)


class UpstreamSide(asyncio.Protocol):
    """A pooled connection to the upstream; what it answers goes to its current caller."""

    def __init__(self, pool: "deque[UpstreamSide]") -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[Header] = []
        self._pending: list[bytes] = []
        self._chunked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses

    def connection_lost(self, exc: Exception | None) -> None:
        with contextlib.suppress(ValueError):
            self._pool.remove(self)

    def send(self, request: bytes, caller: asyncio.Transport) -> None:
        self._caller = caller
        self._headers = []
        self._chunked = False
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if self._pending:
            self._caller.write(b"".join(self._pending))
            self._pending.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))
        if name.lower() == b"transfer-encoding":
            self._chunked = True

    def on_headers_complete(self) -> None:
        framing = b"Transfer-Encoding: chunked\r\n" if self._chunked else b""
        status = self._parser.get_status_code()
        self._pending.append(b"HTTP/1.1 %d OK\r\n%b%b\r\n" % (status, kept(self._headers), framing))

    def on_body(self, body: bytes) -> None:
        self._pending.append(b"%x\r\n%b\r\n" % (len(body), body) if self._chunked else body)

    def on_message_complete(self) -> None:
        if self._chunked:
            self._pending.append(b"0\r\n\r\n")
        self._pool.append(self)


class CallerSide(asyncio.Protocol):
    """A caller's connection, one request at a time."""

    def __init__(self, pool: deque[UpstreamSide], upstream_port: int) -> None:
        self._pool = pool
        self._upstream_port = upstream_port
        self._parser = httptools.HttpRequestParser(self)
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""
        self._body: list[bytes] = []
        self._headers: list[Header] = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        line = b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\n" % (self._parser.get_method(), self._url)
        request = b"%b%b\r\n%b" % (line, kept(self._headers), b"".join(self._body))
        if self._pool:
            self._pool.pop().send(request, self._transport)
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(request))

    async def _connect(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(lambda: UpstreamSide(self._pool), "127.0.0.1", self._upstream_port)
        upstream.send(request, self._transport)


async def serve(port: int, upstream_port: int) -> None:
    loop = asyncio.get_running_loop()
    pool: deque[UpstreamSide] = deque()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: CallerSide(pool, upstream_port), "127.0.0.1", port, backlog=16_384)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
