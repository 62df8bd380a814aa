"""One request on a client connection, and its answer, as a handler sees them.

Everything a handler does to a client that has left is ignored, so that it can go on to its own end.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from gateway.core.errors import BodyTooLarge
from gateway.proxy.http1.errors import ClientGone
from gateway.proxy.http1.framing import RequestHead
from gateway.proxy.http1.headers import Headers
from gateway.proxy.http1.inbound import Inbound
from gateway.proxy.http1.tunnel import SWITCH_LINES, Surrendered

if TYPE_CHECKING:
    from gateway.proxy.http1.edge import Connection

REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_BODILESS: Final = (204, 304)

# How the body of the answer is delimited.
_NONE, _LENGTH, _CHUNKED, _CLOSE = range(4)


class Request(Inbound):
    """A request whose head is complete."""

    __slots__ = (
        "_connection",
        "_delimited",
        "_expects_continue",
        "_left_bytes",
        "_on_gone",
        "_on_resume",
        "_writable",
        "ended",
        "gone",
        "head",
        "keep_alive",
        "length",
        "paused",
        "started",
        "task",
    )

    task: asyncio.Task[None]  # that serves it

    def __init__(self, connection: "Connection", head: RequestHead, length: int | None) -> None:
        Inbound.__init__(self)
        self.head = head
        self.length = length
        self.keep_alive = head.keep_alive
        self.started = False
        self.ended = False
        self.gone = False
        self.paused = False
        self._connection = connection
        self._expects_continue = head.expects_continue
        self._delimited = _NONE
        self._left_bytes = 0
        self._on_gone: list[Callable[[], None]] | None = None
        self._on_resume: list[Callable[[], None]] | None = None
        self._writable: asyncio.Event | None = None

    @property
    def method(self) -> bytes:
        return self.head.method

    @property
    def target(self) -> bytes:
        return self.head.target

    @property
    def path(self) -> bytes:
        """The target up to its '?'."""
        return self.head.path

    @property
    def headers(self) -> Headers:
        """As received: order, case and duplicates kept."""
        length = self.length
        if length is None or self.head.length == length:
            return self.head.headers
        digits = b"%d" % length
        return [(name, digits if name.lower() == b"content-length" else value) for name, value in self.head.headers]

    @property
    def peer(self) -> str:
        return self._connection.peer

    def get(self, name: bytes) -> bytes | None:
        """The first value of the field with this lower-case name."""
        return self.head.fields.get(name)

    # --- the body ------------------------------------------------------------------------------------------------

    async def read_body(self, bytes_max: int) -> bytes:
        """Return the whole body. Raises BodyTooLarge, RequestTimeout, InvalidRequest (malformed) or ClientGone."""
        if not self.complete:
            if self.length is not None and self.length > bytes_max:
                raise BodyTooLarge
            self._want_body()
            await self._arrival(bytes_max + 1)
        if self.buffered_bytes > bytes_max:
            self._take()
            raise BodyTooLarge
        return self._take()

    async def arrived(self, bytes_min: int) -> None:
        """Wait until so much of a body is there of which nobody took any, or all of it. Raises as `read_body` does."""
        if not self.complete:
            self._want_body()
            await self._arrival(bytes_min)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; the client is held back while nobody asks. Raises as `read_body` does."""
        while True:
            if not self.buffered_bytes and not self.complete:
                self._want_body()
                await self._arrival(1)
            if self.buffered_bytes:
                yield self._take()
            elif self.complete:
                return

    def _want_body(self) -> None:
        if self._expects_continue and not (self.received_bytes or self.started or self.gone):
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._expects_continue = False
        self._connection.want_body()

    # --- the answer ----------------------------------------------------------------------------------------------

    def inform(self, status: int, reason: bytes, lines: bytes) -> None:
        """Send an interim answer (1xx), which HTTP/1.0 does not know; the answer itself has not begun."""
        if not self.gone and not self.head.is_http10:
            self._connection.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, lines))

    def start(self, status: int, reason: bytes, lines: bytes, *, length: int | None) -> None:
        """Begin the answer, with these header lines.

        Without a length the body is chunked, or ends with the connection for HTTP/1.0.
        """
        head = self._head(status, reason, lines, length)
        if not self.gone:
            self._connection.write_soon(head)

    def write(self, data: bytes) -> None:
        """Send a piece of the body; raises ValueError when it is more than the length that was declared."""
        if self.gone or not data or self._delimited == _NONE:
            return
        if self._delimited == _CHUNKED:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        elif self._delimited == _LENGTH:
            if len(data) > self._left_bytes:
                raise ValueError("the answer is longer than its declared length")
            self._left_bytes -= len(data)
        self._connection.write(data)

    async def drain(self) -> None:
        """Wait while more is buffered than the high-water mark; returns at once when the client has left."""
        while self.paused and not self.gone:
            if self._writable is None:
                self._writable = asyncio.Event()
            self._writable.clear()
            await self._writable.wait()

    def end(self) -> None:
        """The answer is complete; one that is shorter than its declared length is broken off instead."""
        if self.ended:
            return
        if self._delimited == _LENGTH and self._left_bytes:
            self.abort()
            return
        self._finish()
        if not self.gone:
            if self._delimited == _CHUNKED:
                self._connection.write(b"0\r\n\r\n")
            self._connection.answered(self)

    def respond(self, status: int, lines: bytes, body: bytes, reason: bytes | None = None) -> None:
        """Send a whole answer, with these header lines, in one write."""
        head = self._head(status, REASONS.get(status, b"") if reason is None else reason, lines, len(body))
        self._finish()
        if not self.gone:
            self._connection.write(head if self._delimited == _NONE else head + body)
            self._connection.answered(self)

    def abort(self) -> None:
        """Break the connection: the client gets what was written, and can tell that it is not the whole."""
        if not self.ended:
            self._finish()
            if not self.gone:
                self._connection.break_off(must_reset=self._delimited == _CLOSE)

    def _finish(self) -> None:
        self.ended = True
        self._on_gone = self._on_resume = None  # they lead back here: a cycle for every call

    def write_framed(self, data: bytes) -> None:
        """Send bytes of an answer that somebody else has framed, head and all; `end` or `abort` must follow."""
        self.started = True
        if not self.gone:
            self._connection.write(data)

    def switch(self, lines: bytes, protocol: asyncio.Protocol) -> Surrendered:
        """Answer with 101 and these header lines, and leave the connection to `protocol`; when that is lost: `gone`."""
        assert not self.started, "an answer begins once"
        self.started = True
        self._connection.write(b"HTTP/1.1 101 Switching Protocols\r\n%b%b\r\n" % (lines, SWITCH_LINES))
        return self._connection.surrender(protocol)

    @property
    def is_followed(self) -> bool:
        """Whether the client has sent another request behind this one, so that the connection cannot be switched."""
        return not self.complete or self._connection.has_read_on

    def _head(self, status: int, reason: bytes, lines: bytes, length: int | None) -> bytes:
        assert not self.started, "an answer begins once"
        assert status >= 200, "an interim answer is none"
        is_bodiless = status in _BODILESS or self.method == b"HEAD"
        framing = b""
        if length is not None:
            if status != 204 and (length or status != 304):  # whose length is that of what it stands for, not its own
                framing = b"Content-Length: %d\r\n" % length
            self._delimited, self._left_bytes = _LENGTH, length
        elif self.head.is_http10:
            self._delimited = _CLOSE
            self.keep_alive = self.keep_alive and is_bodiless
        elif not is_bodiless:
            framing = b"Transfer-Encoding: chunked\r\n"
            self._delimited = _CHUNKED
        if is_bodiless:
            self._delimited = _NONE
        if self._connection.is_draining or not (self.complete or self.is_awaited):
            self.keep_alive = False  # a body that nobody reads by now will not be read to its end
        if not self.keep_alive:
            framing += b"Connection: close\r\n"
        elif self.head.is_http10:
            framing += b"Connection: keep-alive\r\n"
        self.started = True
        return b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (status, reason, lines, framing)

    # --- the client ----------------------------------------------------------------------------------------------

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the client leaves before the end of its answer; at once if it has."""
        if self.gone:
            callback()
        elif self._on_gone is None:
            self._on_gone = [callback]
        else:
            self._on_gone.append(callback)

    def on_resume(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever what is buffered has fallen below the low-water mark, after `paused`."""
        if self._on_resume is None:
            self._on_resume = [callback]
        else:
            self._on_resume.append(callback)

    def leave(self) -> None:
        """The connection tells: the client has closed it."""
        if self.gone:
            return
        self.gone = True
        self.fail(ClientGone())
        if self._writable is not None:
            self._writable.set()
        for callback in self._on_gone or ():
            callback()

    def pause(self) -> None:
        """The connection tells: too much is buffered."""
        self.paused = True

    def resume(self) -> None:
        """The connection tells: the client has taken enough."""
        self.paused = False
        if self._writable is not None:
            self._writable.set()
        for callback in self._on_resume or ():
            callback()
