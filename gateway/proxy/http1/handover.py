"""Requests for another HTTP server in this process: each is handed over whole, and its answer's bytes pass as they are.

That server sees a connection of its own for each request, and only what the edge's strict parser has accepted, written
anew. The client's connection goes on behind an answer that was seen to be complete; behind any other it is cut.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import httptools

from gateway.core.errors import InvalidRequest
from gateway.proxy.http1.headers import Header, encode, without
from gateway.proxy.http1.request import Request


class Handover:
    """`make_protocol` makes the other server's protocol for one connection."""

    def __init__(self, make_protocol: Callable[[], asyncio.Protocol], *, body_bytes_max: int) -> None:
        self._make_protocol = make_protocol
        self.body_bytes_max = body_bytes_max

    async def serve(self, request: Request, added: Header) -> int:
        """Have `request`, with one more header field, answered: with which status, or 0 if it came to none.

        Raises the `GatewayError` that refuses it.
        """
        body = await request.read_body(self.body_bytes_max)
        protocol = self._make_protocol()
        line = Line(request, protocol)
        protocol.connection_made(line)
        try:
            protocol.data_received(_written(request, body, added))
            await line.closed.wait()
        finally:
            line.close()
            protocol.connection_lost(None)
        if not request.started:
            raise InvalidRequest("The headers of this request contradict each other.")
        if line.is_complete:
            request.keep_alive = request.keep_alive and line.keeps_alive
            request.end()
        else:
            request.abort()
        return line.status


def _written(request: Request, body: bytes, added: Header) -> bytes:
    """The request as the other server reads it: one that closes, so that the end of its answer shows."""
    head = request.head
    host = [(b"Host", head.fields[b"host"])] if b"host" in head.fields else []
    lines = encode([*host, *without(head.travelling, added[0]), added])
    version = b"1.0" if head.is_http10 else b"1.1"
    framing = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    return b"%b %b HTTP/%b\r\n%b%b%b" % (head.method, head.target, version, lines, framing, body)


class Line(asyncio.Transport):
    """The other server's end of its connection: what it writes goes to the client, and is followed to its end."""

    def __init__(self, request: Request, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.closed = asyncio.Event()
        self.status = 0
        self.is_complete = False
        self.keeps_alive = False
        self._request = request
        self._protocol = protocol
        self._is_paused = False
        self._parser = httptools.HttpResponseParser(self)
        request.on_resume(self._resume)
        request.on_gone(self._resume)  # nobody is left to be slow

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.closed.is_set() or not data:
            return
        data = bytes(data)
        self._follow(data)
        request = self._request
        request.write_framed(data)
        if request.paused and not self._is_paused:
            self._is_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def _resume(self) -> None:
        if self._is_paused and not self.closed.is_set():
            self._is_paused = False
            self._protocol.resume_writing()

    def close(self) -> None:
        self.closed.set()

    def abort(self) -> None:
        self.closed.set()

    def is_closing(self) -> bool:
        return self.closed.is_set() or self._request.gone

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peername":
            host, _, port = self._request.peer.rpartition(":")
            return (host, int(port)) if port else default
        return default

    def pause_reading(self) -> None:
        """The request was read whole: there is nothing to hold back."""

    def resume_reading(self) -> None:
        pass

    # --- following the answer ------------------------------------------------------------------------------------

    def _follow(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_complete = False
            self.close()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.keeps_alive = self._parser.should_keep_alive()
        self.is_complete = self._request.method == b"HEAD"

    def on_message_complete(self) -> None:
        self.is_complete = True
