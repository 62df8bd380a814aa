"""One client connection: bytes in to requests, one at a time, and their answers back in order.

A client that closes its side while it is owed an answer counts as gone, as with nginx: SDK clients never half-close,
and a caller who left must be noticed at once.
"""

import asyncio
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, cast

from gateway.core.errors import GatewayError, RequestTimeout
from gateway.proxy.http1.headers import encode
from gateway.proxy.http1.reader import RequestReader
from gateway.proxy.http1.request import REASONS, Request
from gateway.proxy.http1.tunnel import Surrendered

if TYPE_CHECKING:
    from gateway.proxy.http1.server import Server

_BACKLOG_BLOCKS_MAX = 64
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """Reads, answers, waits. `_current` is the request whose turn it is."""

    __slots__ = (
        "_backlog",
        "_backlog_bytes",
        "_closing",
        "_current",
        "_deaf",
        "_head",
        "_is_first",
        "_left_bytes",
        "_loop",
        "_marked_bytes",
        "_reader",
        "_reading_paused",
        "_refusal",
        "_server",
        "_since",
        "_stalls",
        "_transport",
        "_waits",
        "_write_paused",
        "peer",
    )

    _transport: asyncio.Transport

    def __init__(self, server: "Server", loop: asyncio.AbstractEventLoop) -> None:
        self.peer = ""
        self._server = server
        self._loop = loop
        self._reader = RequestReader(server.limits, server.known_heads, partial(Request, self))
        self._current: Request | None = None
        self._refusal: GatewayError | None = None  # of what follows the requests that were read
        self._backlog: list[bytes] = []  # not read yet: an answer is owed first
        self._backlog_bytes = 0
        self._head = b""  # of an answer, about to be sent
        self._since = server.now  # tick of what the current timeout counts from
        self._waits = 0  # ticks that the current request spent waiting for its body, since
        self._marked_bytes = 0  # so much of it had arrived
        self._stalls = 0  # ticks for which the client has held answers back, since
        self._left_bytes = 0  # so much was left to be sent
        self._is_first = True
        self._write_paused = False
        self._reading_paused = False
        self._deaf = False  # what still comes is dropped
        self._closing = False

    @property
    def is_draining(self) -> bool:
        return self._server.is_draining

    # --- from the loop -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses
        limits = self._server.limits
        self._transport.set_write_buffer_limits(limits.write_high_water_bytes, limits.write_low_water_bytes)
        address = transport.get_extra_info("peername")
        self.peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else ""
        if not self._server.admit(self):
            self._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = self._deaf = True
        self._server.forget(self)
        current, self._current = self._current, None
        arriving = self._reader.arriving
        del self._reader  # a cycle with llhttp's callbacks
        self._head = b""
        self._backlog.clear()
        if arriving is not None:
            arriving.leave()
        if current is not None:
            current.leave()

    def eof_received(self) -> None:
        """Falsy: the transport closes, once it has sent what is buffered."""
        if self._current is not None:
            self._current.leave()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._current is None and not self._write_paused:
            request = self._reader.recognise(data)
            if request is not None:
                self._start(request)
                return
        elif self._current is None or self._reader.arriving is not self._current:
            self._backlog.append(data)
            self._backlog_bytes += len(data)
            if len(self._backlog) == _BACKLOG_BLOCKS_MAX:  # in little blocks, they take more than the bytes in them
                self._backlog = [b"".join(self._backlog)]
            if self._backlog_bytes > self._server.limits.request_buffer_bytes_max:
                self._pause_reading()
            return
        self._read(data)

    def _read(self, data: bytes) -> None:
        reader = self._reader
        if not reader.in_head:
            self._since = self._server.now
        try:
            reader.feed(data)
        except GatewayError as error:
            self._deaf = True
            if reader.arriving is None:
                self._refusal = error
            else:
                reader.arriving.keep_alive = False
                reader.arriving.fail(error)
        if self._current is None:
            self._next()
        arriving = reader.arriving
        if (
            arriving is not None
            and arriving.buffered_bytes > self._server.limits.request_buffer_bytes_max
            and not arriving.is_awaited
        ):
            self._pause_reading()

    def _next(self) -> None:
        if self._write_paused:
            return  # a client that takes no answer is given no further one
        if self._reader.requests:
            request = self._reader.requests.pop(0)
            if self._is_last:
                request.keep_alive = False
            self._start(request)
        elif self._refusal is not None:
            self._refuse(self._refusal)

    def _start(self, request: Request) -> None:
        self._current = request
        self._is_first = False
        self._since = self._server.now
        self._waits = self._marked_bytes = 0
        request.paused = self._write_paused
        self._server.serve(request)

    @property
    def has_read_on(self) -> bool:
        """Whether something behind the current request has been parsed already."""
        reader = self._reader
        return bool(reader.requests) or reader.in_head or reader.arriving is not None or self._refusal is not None

    @property
    def _is_last(self) -> bool:
        """Nothing comes behind the request whose turn it is."""
        reader = self._reader
        return reader.closed and not reader.requests and self._refusal is None

    def pause_writing(self) -> None:
        self._write_paused = True
        self._stalls, self._left_bytes = 0, self._transport.get_write_buffer_size()
        if self._current is not None:
            self._current.pause()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._since = self._server.now
        if self._current is not None:
            self._current.resume()
        elif not self._closing:
            self._go_on()

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    # --- from the request being answered -------------------------------------------------------------------------

    def want_body(self) -> None:
        self._since = self._server.now
        self._resume_reading()

    def write(self, data: bytes) -> None:
        """Send now, together with a head that waits to be sent."""
        if self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)

    def write_soon(self, head: bytes) -> None:
        """Send at the end of this turn of the loop, unless something goes along before."""
        self._head = head
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._head and not self._closing:
            self.write(b"")

    def answered(self, request: Request) -> None:
        """The answer is complete: on to the next request, or to the end."""
        self._flush()
        self._current = None
        self._since = self._server.now
        if self._closing:
            return
        if not request.complete or (not request.keep_alive and self._backlog):
            self._linger()
        elif not request.keep_alive or self.is_draining or self._is_last:
            self._close()
        else:
            self._go_on()

    def _go_on(self) -> None:
        self._next()
        # What waits may be the rest of the body of the request that has just begun.
        is_wanted = self._current is self._reader.arriving
        if self._backlog and is_wanted and not self._deaf and not self._write_paused:
            data = b"".join(self._backlog)
            self._backlog.clear()
            self._backlog_bytes = 0
            self._resume_reading()
            self._read(data)

    def surrender(self, protocol: asyncio.Protocol) -> Surrendered:
        """Leave the transport to `protocol`; the current request stays the current one until that is lost."""
        self._transport.set_protocol(protocol)
        behind = b"".join(self._backlog)
        self._backlog.clear()
        self._resume_reading()
        return Surrendered(self, self._transport, behind)

    def break_off(self, *, must_reset: bool) -> None:
        """End the connection so that the answer is seen to be cut; `must_reset` where a plain close completes it."""
        self._current = None
        if self._closing:
            return
        if must_reset:
            socket_ = self._transport.get_extra_info("socket")
            socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._abort()
        else:
            self._flush()
            self._close()

    # --- the end -------------------------------------------------------------------------------------------------

    def _refuse(self, error: GatewayError) -> None:
        """Answer what never became a request."""
        body = error.body()
        lines = encode([(b"Content-Type", b"application/json"), *error.headers(), *self._server.refused(error)])
        framing = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        reason = REASONS.get(error.status, b"")
        self._refusal = None
        self.write(b"HTTP/1.1 %d %b\r\n%b%b%b" % (error.status, reason, lines, framing, body))
        self._linger()

    def _linger(self) -> None:
        """Close, but read on for a while: closing on unread bytes is a reset, which can destroy the last answer."""
        self._backlog.clear()
        self._begin_end()
        if self._transport.is_closing():
            return
        try:
            self._transport.write_eof()
        except OSError:  # reset by now
            self._transport.close()
            return
        self._resume_reading()

    def _close(self) -> None:
        self._begin_end()
        self._transport.close()

    def _begin_end(self) -> None:
        self._deaf = self._closing = True
        self._since = self._server.now
        self._stalls, self._left_bytes = 0, self._transport.get_write_buffer_size()

    def _abort(self) -> None:
        self._deaf = self._closing = True
        self._transport.abort()

    def close_if_idle(self) -> None:
        if self._current is None and not self._closing:
            self._close()

    def abort(self) -> None:
        """End the connection at once; whoever is being answered sees its client gone."""
        self._abort()

    def sweep(self, now: int) -> None:
        """Look whether something takes too long."""
        timeouts = self._server.timeouts
        waited = now - self._since
        current = self._current
        if self._closing:
            self._sweep_end(now)
            return
        if self._write_paused:
            self._sweep_answer()
        if current is not None and current.is_awaited:
            self._sweep_body(current)
        elif current is not None or self._write_paused:
            return
        elif self._reader.in_head:
            if waited > timeouts.head:
                self._refuse(RequestTimeout("The request head did not arrive in time."))
        elif waited > (timeouts.head if self._is_first else timeouts.keepalive):
            self._close()

    def _sweep_body(self, request: Request) -> None:
        """A body must arrive at a rate, or one byte now and then would hold its connection and its handler for hours.

        Only the ticks are counted in which its handler waited, since a body that nobody takes is held back.
        """
        timeouts = self._server.timeouts
        self._waits += 1
        if self._waits <= timeouts.body_idle:
            return
        if request.received_bytes - self._marked_bytes < timeouts.body_bytes_min:
            self._deaf = True
            request.keep_alive = False
            request.fail(RequestTimeout("The request body did not arrive in time."))
        self._waits, self._marked_bytes = 0, request.received_bytes

    def _sweep_end(self, now: int) -> None:
        """The last answer is taken at the usual rate; what may still come behind that is waited for much less long."""
        if self._transport.get_write_buffer_size():
            self._since = now
            self._sweep_answer()
        elif now - self._since > self._server.timeouts.linger:
            self._abort()

    def _sweep_answer(self) -> None:
        self._stalls += 1
        if self._stalls <= self._server.timeouts.write_stall:
            return
        left_bytes = self._transport.get_write_buffer_size()
        if self._left_bytes - left_bytes < self._server.timeouts.write_bytes_min:
            self._abort()
        self._stalls, self._left_bytes = 0, left_bytes
