"""The HTTP/1.1 edge: connections, requests and answers on one asyncio protocol over llhttp, strict.

What is malformed is refused with 4xx and the connection closed; nothing is guessed. Knows nothing of money.
A client that shuts down its sending side is taken as gone: no HTTP client in use does that and still listens.
"""

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from http import HTTPStatus
from typing import Any

import httptools
import msgspec
import structlog

from gateway.core.errors import (
    BodyTooLarge,
    GatewayError,
    HeadersTooLarge,
    InvalidRequest,
    RequestTimeout,
    ShuttingDown,
)
from gateway.proxy.h1tmp.headers import Headers, value_of

log = structlog.get_logger(__name__)

__all__ = ["ClientGone", "Headers", "Limits", "Request", "Server"]

SWEEP_S = 0.5
LINGER_S = 2.0
LINGER_BYTES_MAX = 16 * 1024 * 1024
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientGone(Exception):
    """The client closed its connection before the request was complete."""


class Limits(msgspec.Struct, frozen=True):
    connections_max: int = 20_000
    head_bytes_max: int = 65_536
    header_count_max: int = 128
    head_timeout_s: float = 10.0
    body_idle_timeout_s: float = 15.0
    keepalive_timeout_s: float = 75.0
    write_high_water_bytes: int = 262_144
    request_buffer_bytes_max: int = 262_144
    pipelined_max: int = 8


class Request:
    """One request, and the way to answer it. Answering a client that is gone does nothing."""

    __slots__ = (
        "_body",
        "_buffered",
        "_complete",
        "_connection",
        "_error",
        "_gone_callbacks",
        "_head",
        "_keep_alive",
        "_left",
        "_resume_callbacks",
        "_started",
        "_waiter",
        "_wants_continue",
        "chunked",
        "ended",
        "gone",
        "headers",
        "method",
        "path",
        "paused",
        "peer",
        "target",
        "version",
    )

    def __init__(
        self, connection: "Connection", method: bytes, target: bytes, version: str, headers: Headers, keep_alive: bool
    ) -> None:
        self.method = method
        self.target = target
        self.path = target.partition(b"?")[0]
        self.version = version
        self.headers = headers
        self.peer = connection.peer
        self.gone = False
        self.paused = False
        self.ended = False  # the answer is
        self.chunked = False  # the answer is
        self._connection = connection
        self._keep_alive = keep_alive
        self._body: list[bytes] = []
        self._buffered = 0
        self._complete = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._wants_continue = version == "1.1" and (self.get(b"expect") or b"").lower() == b"100-continue"
        self._head = b""  # of the answer, until its first byte of body goes with it
        self._left: int | None = None  # bytes of the answer's body still to come, if its length is given
        self._started = False
        self._gone_callbacks: list[Callable[[], None]] = []
        self._resume_callbacks: list[Callable[[], None]] = []

    def get(self, name: bytes) -> bytes | None:
        """The first value of a header field; `name` in lower case."""
        return value_of(self.headers, name)

    # --- the request's body ---------------------------------------------------------------------------------------

    async def read_body(self, bytes_max: int) -> bytes:
        """The whole body. Raises `BodyTooLarge`, `RequestTimeout`, `InvalidRequest` or `ClientGone`."""
        declared = self.get(b"content-length")
        if declared is not None and int(declared) > bytes_max:
            raise BodyTooLarge(f"The request body is larger than {bytes_max} bytes.")
        while not self._complete:
            if self._buffered > bytes_max:
                raise BodyTooLarge(f"The request body is larger than {bytes_max} bytes.")
            self._connection.resume_reading()
            await self._more()
        if self._buffered > bytes_max:
            raise BodyTooLarge(f"The request body is larger than {bytes_max} bytes.")
        return self._take()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes; reading from the client pauses while nobody takes it."""
        while True:
            if self._body:
                data = self._take()
                self._connection.resume_reading()
                yield data
            elif self._complete:
                return
            else:
                await self._more()

    def _take(self) -> bytes:
        data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._buffered = 0
        return data

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        if self._wants_continue:
            self._wants_continue = False
            self._connection.write(CONTINUE)
        self._waiter = asyncio.get_running_loop().create_future()
        self._connection.expect_body()
        await self._waiter
        if self._error is not None:
            raise self._error

    def feed(self, data: bytes) -> int:
        """Part of the body arrived; returns how much waits to be taken."""
        self._body.append(data)
        self._buffered += len(data)
        self._wake()
        return self._buffered

    def feed_end(self) -> None:
        self._complete = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """The body will not come."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @property
    def is_complete(self) -> bool:
        return self._complete

    # --- the answer -----------------------------------------------------------------------------------------------

    def start(self, status: int, reason: bytes, headers: Headers, *, length: int | None) -> None:
        """Begin the answer. Without a length the body is chunked, for HTTP/1.0 delimited by the connection's end."""
        assert not self._started, "the answer has begun"
        self._started = True
        has_body = self.method != b"HEAD" and status >= 200 and status not in (204, 304)
        parts = [b"HTTP/1.1 %d %b\r\n" % (status, reason)]
        parts += [b"%b: %b\r\n" % field for field in headers]
        if not has_body:
            self._left = 0
            if length is not None and status != 204:
                parts.append(b"content-length: %d\r\n" % length)
        elif length is not None:
            self._left = length
            parts.append(b"content-length: %d\r\n" % length)
        elif self.version == "1.1":
            self.chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
        else:
            self._keep_alive = False
        if not self._complete or self._connection.is_stopping:
            self._keep_alive = False
        if not self._keep_alive:
            parts.append(b"connection: close\r\n")
        elif self.version == "1.0":
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        self._head = b"".join(parts)

    def write(self, data: bytes) -> None:
        if self.gone or not data:
            return
        if self._left is not None:
            if self.method == b"HEAD":
                return
            self._left -= len(data)
            assert self._left >= 0, "the answer is longer than its length"
        elif self.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        head, self._head = self._head, b""
        self._connection.write(head + data if head else data)

    def end(self) -> None:
        """The answer is complete. One that is shorter than its length breaks the connection."""
        if self.ended:
            return
        if self._left:
            self.abort()
            return
        self.ended = True
        tail = self._head + (b"0\r\n\r\n" if self.chunked else b"")
        if tail:
            self._connection.write(tail)
        self._connection.answered(self._keep_alive)

    def respond(self, status: int, headers: Headers, body: bytes, reason: bytes | None = None) -> None:
        """Answer in one go."""
        if self.gone:
            return
        self.start(status, reason if reason is not None else REASONS.get(status, b""), headers, length=len(body))
        self.write(body)
        self.end()

    def abort(self) -> None:
        """Break the connection, so that the client cannot take the answer for complete."""
        if not self.ended:
            self.ended = True
            if self._head:
                self._connection.write(self._head)
            self._connection.close_truncated()

    # --- the client -----------------------------------------------------------------------------------------------

    @property
    def has_started(self) -> bool:
        return self._started

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Call back when the client leaves before the answer has ended; at once if it already has."""
        if self.gone:
            callback()
        else:
            self._gone_callbacks.append(callback)

    def on_resume(self, callback: Callable[[], None]) -> None:
        """Call back when a slow client has caught up."""
        self._resume_callbacks.append(callback)

    def lost(self) -> None:
        if self.gone or self.ended:
            return
        self.gone = True
        self.fail(ClientGone())
        for callback in self._gone_callbacks:
            callback()

    def resumed(self) -> None:
        self.paused = False
        for callback in self._resume_callbacks:
            callback()


Handler = Callable[[Request], Coroutine[Any, Any, None]]


class Connection(asyncio.Protocol):
    """One client connection: parses, hands requests to the handler one at a time, writes the answers in order."""

    __slots__ = (
        "_body_of",
        "_current",
        "_fields",
        "_fields_bytes",
        "_head_bytes",
        "_is_closing",
        "_is_reading",
        "_lingered",
        "_parser",
        "_queue",
        "_refusal",
        "_server",
        "_target",
        "_transport",
        "_url_seen",
        "deadline",
        "peer",
    )

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._current: Request | None = None
        self._queue: deque[Request] = deque()
        self._body_of: Request | None = None  # the request whose body is being parsed
        self._fields: Headers = []
        self._fields_bytes = 0
        self._head_bytes = 0  # of an unfinished head
        self._target = b""
        self._refusal: GatewayError | None = None
        self._is_reading = True
        self._is_closing = False  # the last answer is out; what still comes is thrown away
        self._lingered = 0
        self.deadline: float | None = None
        self.peer = ""

    # --- from the transport ----------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        address = transport.get_extra_info("peername")
        self.peer = address[0] if isinstance(address, tuple) else ""
        transport.set_write_buffer_limits(high=self._server.limits.write_high_water_bytes)
        if not self._server.adopt(self):
            transport.abort()
            return
        self.deadline = self._server.now() + self._server.limits.head_timeout_s

    def connection_lost(self, error: Exception | None) -> None:
        self._server.forget(self)
        self.deadline = None
        requests = [self._current, *self._queue] if self._current else [*self._queue]
        self._queue.clear()
        for request in requests:
            request.lost()

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES_MAX:
                self._transport.abort()
            return
        if self._body_of is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(InvalidRequest("This endpoint does not speak the protocol that Upgrade asks for."))
        except httptools.HttpParserCallbackError:
            self._refuse(self._refusal or InvalidRequest())
        except httptools.HttpParserError:
            self._refuse(InvalidRequest("The request is not valid HTTP/1.1."))
        else:
            if self._body_of is None and self._head_bytes > self._server.limits.head_bytes_max:
                self._refuse(HeadersTooLarge())

    def eof_received(self) -> bool:
        return False  # the transport closes: see the module's docstring

    def pause_writing(self) -> None:
        if self._current is not None:
            self._current.paused = True

    def resume_writing(self) -> None:
        if self._current is not None:
            self._current.resumed()

    # --- from the parser -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._fields = []
        self._fields_bytes = 0
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._body_of is not None:
            return  # a trailer field: nothing here has a use for it
        self._fields.append((name, value))
        self._fields_bytes += len(name) + len(value)
        limits = self._server.limits
        if len(self._fields) > limits.header_count_max or self._fields_bytes > limits.head_bytes_max:
            self._stop(HeadersTooLarge())

    def on_headers_complete(self) -> None:
        parser = self._parser
        request = Request(
            self,
            parser.get_method(),
            self._target,
            parser.get_http_version(),
            self._fields,
            parser.should_keep_alive(),
        )
        self._check(request)
        self._head_bytes = 0
        self._body_of = request
        if self._current is None:
            self._begin(request)
        else:
            self._queue.append(request)
            if len(self._queue) >= self._server.limits.pipelined_max:
                self.pause_reading()

    def _check(self, request: Request) -> None:
        """Refuse what llhttp lets pass and two readers could take for two different requests."""
        if request.version not in ("1.0", "1.1"):
            self._stop(InvalidRequest("Only HTTP/1.0 and HTTP/1.1 are spoken here."))
        hosts = lengths = codings = 0
        for name, value in request.headers:
            lower = name.lower()
            if lower == b"host":
                hosts += 1
            elif lower == b"content-length":
                lengths += 1
                if not value.isdigit():
                    self._stop(InvalidRequest("Content-Length is not a number."))
            elif lower == b"transfer-encoding":
                codings += 1
                if value.strip().lower() != b"chunked":
                    self._stop(InvalidRequest("The only Transfer-Encoding taken here is chunked."))
            if b"\0" in value or b"\r" in value or b"\n" in value:
                self._stop(InvalidRequest("A header field holds a control character."))
        if hosts > 1 or (hosts == 0 and request.version == "1.1"):
            self._stop(InvalidRequest("A request names its Host exactly once."))
        if lengths + codings > 1 or (codings and request.version == "1.0"):
            self._stop(InvalidRequest("The length of the request body is ambiguous."))
        if len(self._target) > self._server.limits.head_bytes_max:
            self._stop(HeadersTooLarge())

    def _stop(self, refusal: GatewayError) -> None:
        """Leave the parser by an exception; `data_received` answers with `refusal`."""
        self._refusal = refusal
        raise refusal

    def on_body(self, data: bytes) -> None:
        request = self._body_of
        assert request is not None
        if request.ended:
            return
        waiting = request.feed(data)
        self.deadline = self._server.now() + self._server.limits.body_idle_timeout_s
        if waiting > self._server.limits.request_buffer_bytes_max:
            self.pause_reading()

    def on_message_complete(self) -> None:
        request, self._body_of = self._body_of, None
        assert request is not None
        self.deadline = None
        request.feed_end()

    # --- requests and answers --------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        self._current = request
        self.deadline = None
        self._server.handle(request)

    def expect_body(self) -> None:
        """The handler waits for the body: from now on its sender must not dawdle."""
        self.deadline = self._server.now() + self._server.limits.body_idle_timeout_s

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def answered(self, keep_alive: bool) -> None:
        """The current request's answer is complete."""
        self._current = None
        if not keep_alive or self._server.is_stopping:
            self._close_politely()
        elif self._queue:
            self.resume_reading()
            self._begin(self._queue.popleft())
        else:
            self.resume_reading()
            self.deadline = self._server.now() + self._server.limits.keepalive_timeout_s

    def _close_politely(self) -> None:
        """Say that nothing more comes, and let the client read the answer before the connection goes."""
        self._is_closing = True
        self._queue.clear()
        if self._body_of is None or not self._transport.can_write_eof():
            self._transport.close()
            return
        self.deadline = self._server.now() + LINGER_S
        self._transport.write_eof()
        self.resume_reading()

    def close_truncated(self) -> None:
        """Close so that the client sees a broken answer, but gets the bytes that were written."""
        self._current = None
        self._is_closing = True
        self._transport.close()

    def _refuse(self, error: GatewayError) -> None:
        """Answer what could not be parsed, unless an earlier answer is still to be finished; then close."""
        body_of, self._body_of = self._body_of, None
        if body_of is not None:
            body_of.fail(error)  # its handler answers
            self._is_closing = True
            return
        if self._current is not None:
            self._current.fail(error)
            self._is_closing = True
            return
        body = error.body()
        fields = [(b"content-type", b"application/json"), *error.headers(), (b"connection", b"close")]
        head = b"HTTP/1.1 %d %b\r\n" % (error.status, REASONS[error.status])
        lines = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.write(head + lines + b"content-length: %d\r\n\r\n" % len(body) + body)
        self._is_closing = True
        self.deadline = self._server.now() + LINGER_S
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def check_deadline(self, now: float) -> None:
        if self.deadline is None or now < self.deadline:
            return
        self.deadline = None
        if self._is_closing:
            self._transport.abort()
        elif self._body_of is not None:
            self._body_of.fail(RequestTimeout())
            self._is_closing = True
        elif self._head_bytes:
            self._refuse(RequestTimeout())
        else:
            self._transport.close()

    def stop_when_idle(self) -> None:
        if self._current is None and not self._queue:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    @property
    def is_stopping(self) -> bool:
        return self._server.is_stopping

    def pause_reading(self) -> None:
        if self._is_reading and not self._transport.is_closing():
            self._is_reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._is_reading and not self._transport.is_closing():
            self._is_reading = True
            self._transport.resume_reading()


class Server:
    """Listens, and runs `handler` as one task for each request."""

    def __init__(self, handler: Handler, limits: Limits | None = None) -> None:
        self._handler = handler
        self.limits = limits or Limits()
        self.is_stopping = False
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop
        self.requests_total = 0

    @property
    def connections(self) -> int:
        return len(self._connections)

    def now(self) -> float:
        return self._loop.time()

    async def start(
        self, *, host: str = "127.0.0.1", port: int = 0, sock: socket.socket | None = None, reuse_port: bool = False
    ) -> str:
        """Listen on host and port, or on a listening socket; returns "HOST:PORT". Raises `OSError`."""
        self._loop = asyncio.get_running_loop()
        if sock is not None:
            listener = await self._loop.create_server(lambda: Connection(self), sock=sock, backlog=4096)
        else:
            listener = await self._loop.create_server(
                lambda: Connection(self), host, port, backlog=4096, reuse_port=reuse_port or None
            )
        self._listeners.append(listener)
        self._sweep()
        bound_host, bound_port = listener.sockets[0].getsockname()[:2]
        return f"[{bound_host}]:{bound_port}" if ":" in bound_host else f"{bound_host}:{bound_port}"

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self._connections):
            connection.check_deadline(now)
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def adopt(self, connection: Connection) -> bool:
        if len(self._connections) >= self.limits.connections_max:
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def handle(self, request: Request) -> None:
        self.requests_total += 1
        task = self._loop.create_task(self._handler(request))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._handled(request, done))

    def _handled(self, request: Request, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ClientGone):
            log.error("request failed", path=request.path.decode("latin-1"), exc_info=error)
        if request.ended or request.gone:
            return
        if request.has_started:
            request.abort()
        else:
            failure = ShuttingDown() if task.cancelled() else GatewayError("The gateway failed; nothing was charged.")
            request.respond(failure.status, [(b"content-type", b"application/json")], failure.body())

    async def stop_accepting(self) -> None:
        """Close the listeners, and the connections on which nothing runs."""
        self.is_stopping = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.stop_when_idle()

    async def drain(self, timeout_s: float) -> None:
        """Let running requests finish within `timeout_s`, then break what is left; returns when no handler runs."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)
        for connection in list(self._connections):
            connection.abort()
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        if self._sweeper is not None:
            self._sweeper.cancel()
