"""The upstream side: a pool of HTTP/1.1 connections to one origin, on asyncio protocols over llhttp, strict.

An answer is handed on as it comes: `pump` calls its sink from the socket's own callback, without a task switch a piece.
Knows nothing of money.
"""

import asyncio
import ssl as tls
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import httptools
import msgspec

from gateway.proxy.h1tmp.headers import Headers, value_of

SWEEP_S = 0.5
BUFFER_BYTES_MAX = 262_144  # of an answer that nobody takes yet; beyond it the socket is not read


class UpstreamError(Exception):
    """The upstream failed."""


class ConnectFailed(UpstreamError):
    """No connection to the upstream could be made."""


class PoolExhausted(UpstreamError):
    """As many connections as are allowed are in use."""


class HeadTimeout(UpstreamError):
    """The upstream did not begin its answer in time."""


class AnswerBroken(UpstreamError):
    """The upstream's answer ended before its end, or is not HTTP."""


class AnswerTooLarge(UpstreamError):
    """The answer is larger than its reader holds; `received` is what came so far, `pump` gives the rest."""

    def __init__(self, received: bytes) -> None:
        super().__init__()
        self.received = received


class Timeouts(msgspec.Struct, frozen=True):
    connect_s: float = 10.0
    head_s: float = 600.0
    body_idle_s: float = 300.0
    idle_s: float = 55.0  # an unused connection is dropped after this, before the upstream drops it
    age_s_max: float = 600.0  # so that changes of the upstream's addresses are followed


class Answer:
    """One answer: its head at once, its body by `read` or `pump`."""

    __slots__ = ("_connection", "headers", "reason", "status")

    def __init__(self, connection: "Connection", status: int, reason: bytes, headers: Headers) -> None:
        self._connection = connection
        self.status = status
        self.reason = reason
        self.headers = headers

    async def read(self, bytes_max: int) -> bytes:
        """The whole body; raises `AnswerTooLarge` or `AnswerBroken`."""
        parts: list[bytes] = []
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            parts.append(data)
            size += len(data)
            if size > bytes_max:
                self._connection.detach_sink()

        await self._connection.deliver(take)
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if size > bytes_max:
            raise AnswerTooLarge(body)
        return body

    async def pump(self, sink: Callable[[bytes], None]) -> None:
        """Hand each piece of the body to `sink` as it arrives; returns at its end, raises `AnswerBroken`.

        What `sink` raises ends the answer and is raised here.
        """
        await self._connection.deliver(sink)

    def pause(self) -> None:
        """Read no more from the upstream until `resume`."""
        self._connection.pause()

    def resume(self) -> None:
        self._connection.resume()

    def abort(self) -> None:
        """Close the connection now, whatever is still to come."""
        self._connection.abort()


class Connection(asyncio.Protocol):
    """One connection to the upstream, for one call at a time."""

    __slots__ = (
        "_answering",
        "_buffer",
        "_buffered",
        "_delivered",
        "_ends_with_connection",
        "_failure",
        "_fields",
        "_finished",
        "_head_waiter",
        "_is_detached",
        "_is_paused",
        "_parser",
        "_pieces",
        "_pool",
        "_reason",
        "_reusable",
        "_sending",
        "_sink",
        "_transport",
        "_writable",
        "deadline",
        "idle_since",
        "made_at",
    )

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._transport: Any = None
        self.made_at = 0.0
        self.idle_since = 0.0
        self.deadline: float | None = None
        self._writable: asyncio.Future[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._fields: Headers = []
        self._reason = b""
        self._head_waiter: asyncio.Future[Answer] | None = None
        self._delivered: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._pieces: list[bytes] = []  # of one read of the socket
        self._buffer: list[bytes] = []  # what came before anybody asked
        self._buffered = 0
        self._finished = False
        self._failure: Exception | None = None
        self._ends_with_connection = False
        self._answering = False
        self._reusable = False
        self._sending = False
        self._is_paused = False
        self._is_detached = False

    # --- one call --------------------------------------------------------------------------------------------------

    async def exchange(self, head: bytes, body: bytes | AsyncIterator[bytes] | None, *, chunked: bool) -> Answer:
        """Send a request and wait for the head of its answer."""
        loop = asyncio.get_running_loop()
        self._head_waiter = loop.create_future()
        self.deadline = loop.time() + self._pool.timeouts.head_s
        try:
            if body is None or isinstance(body, bytes):
                self._transport.write(head + body if body else head)
            else:
                await self._send_streamed(head, body, chunked=chunked)
            return await self._head_waiter
        except BaseException:
            self.abort()
            raise

    async def _send_streamed(self, head: bytes, body: AsyncIterator[bytes], *, chunked: bool) -> None:
        self._sending = True
        self._transport.write(head)
        async for data in body:
            if self._failure is not None or (self._head_waiter is not None and self._head_waiter.done()):
                return  # the upstream has answered, or gone, without wanting the rest
            if self._writable is not None:
                await self._writable
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
        if chunked:
            self._transport.write(b"0\r\n\r\n")
        self._sending = False

    async def deliver(self, sink: Callable[[bytes], None]) -> None:
        """Give `sink` what has come and what comes, until the end of the answer or `detach_sink`."""
        try:
            self._is_detached = False
            self._sink = sink
            if self._buffer:
                data = b"".join(self._buffer)
                self._buffer.clear()
                self._buffered = 0
                sink(data)
                if self._is_detached:
                    return
            if self._failure is not None:
                raise self._failure
            if self._finished:
                return
            self._delivered = asyncio.get_running_loop().create_future()
            self.resume()
            await self._delivered
        except BaseException:
            self.abort()
            raise
        finally:
            self._sink = None
            self._delivered = None
            if self._finished and self._failure is None and not self._is_detached:
                self._release()

    def detach_sink(self) -> None:
        """The reader has enough for now; what comes is buffered for the next one."""
        self._sink = None
        self._is_detached = True
        self.pause()
        if self._delivered is not None and not self._delivered.done():
            self._delivered.set_result(None)

    def _release(self) -> None:
        if self._reusable and not self._sending and not self._transport.is_closing():
            self._reset()
            self.deadline = None
            self._pool.give_back(self)
        else:
            self.abort()

    def abort(self) -> None:
        self._fail(AnswerBroken("the call was ended here"))
        self._transport.abort()

    def close(self) -> None:
        self._transport.close()

    def pause(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()
            self._expect_more()

    @property
    def is_usable(self) -> bool:
        return not self._transport.is_closing()

    def check_deadline(self, now: float) -> None:
        if self.deadline is None or now < self.deadline or self._is_paused:
            return
        waiting_for_head = self._head_waiter is not None and not self._head_waiter.done()
        self._fail(HeadTimeout() if waiting_for_head else AnswerBroken("the answer stalled"))
        self._transport.abort()

    def _expect_more(self) -> None:
        self.deadline = self._pool.now() + self._pool.timeouts.body_idle_s

    def _fail(self, error: Exception) -> None:
        if self._finished or self._failure is not None:
            return
        self._failure = error
        self.deadline = None
        for waiter in (self._head_waiter, self._delivered):
            if waiter is not None and not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # seen, also when the one who waited was cancelled

    # --- from the transport ----------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.made_at = self._pool.now()

    def data_received(self, data: bytes) -> None:
        if self._head_waiter is None or self._finished:
            self._transport.abort()  # the upstream speaks without being asked
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError) as error:
            self._flush()
            self._fail(AnswerBroken(f"the answer is not HTTP/1.1: {error}"))
            self._transport.abort()
            return
        self._flush()

    def _flush(self) -> None:
        """Hand on what one read of the socket brought, in one piece."""
        pieces = self._pieces
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._expect_more()
            if self._sink is not None:
                try:
                    self._sink(data)
                except Exception as error:  # noqa: BLE001  (raised again by `deliver`, whose caller gave the sink)
                    self._fail(error)
                    self._transport.abort()
                    return
            else:
                self._buffer.append(data)
                self._buffered += len(data)
                if self._buffered > BUFFER_BYTES_MAX:
                    self.pause()
        if self._finished and self._delivered is not None and not self._delivered.done():
            self._delivered.set_result(None)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.forget(self)
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self._ends_with_connection and error is None:
            self._finished = True
            self._flush()
        else:
            self._fail(AnswerBroken("the connection was closed"))

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- from the parser -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._fields = []
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._answering:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return  # interim: the one that counts follows
        self._answering = True
        self._reusable = self._parser.should_keep_alive()
        fields = self._fields
        self._ends_with_connection = (
            status not in (204, 304)
            and value_of(fields, b"content-length") is None
            and value_of(fields, b"transfer-encoding") is None
        )
        waiter = self._head_waiter
        if waiter is not None and not waiter.done():
            self._expect_more()
            waiter.set_result(Answer(self, status, self._reason, fields))

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self._answering:
            self._finished = True
            self.deadline = None


class Pool:
    """Connections to one origin, the last used first."""

    def __init__(
        self,
        origin: str,
        *,
        timeouts: Timeouts | None = None,
        connections_max: int = 10_000,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(origin)
        assert parts.hostname is not None, "an origin has a host"
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._host_field = parts.netloc.rpartition("@")[2].encode()
        self._ssl = ssl
        self.timeouts = timeouts or Timeouts()
        self._connections_max = connections_max
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._connecting = 0
        self._sweeper: asyncio.TimerHandle | None = None

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def send(
        self, method: bytes, target: bytes, headers: Headers, body: bytes | AsyncIterator[bytes] | None
    ) -> Answer:
        """Send one request; returns the answer once its head is there.

        Raises `ConnectFailed`, `PoolExhausted`, `HeadTimeout` or `AnswerBroken`. Nothing is sent twice: whether an
        upstream that closed its connection has begun the work cannot be known.
        """
        chunked = body is not None and not isinstance(body, bytes)
        parts = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method, target, self._host_field)]
        parts += [b"%b: %b\r\n" % field for field in headers]
        if chunked:
            parts.append(b"transfer-encoding: chunked\r\n")
        elif isinstance(body, bytes):
            parts.append(b"content-length: %d\r\n" % len(body))
        parts.append(b"\r\n")
        connection = self._take_idle() or await self._connect()
        return await connection.exchange(b"".join(parts), body, chunked=chunked)

    def _take_idle(self) -> Connection | None:
        oldest_made_at = self.now() - self.timeouts.age_s_max
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and connection.made_at > oldest_made_at:
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        if len(self._all) + self._connecting >= self._connections_max:
            raise PoolExhausted
        loop = asyncio.get_running_loop()
        if self._sweeper is None:
            self._sweep()
        self._connecting += 1
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self), self._host, self._port, ssl=self._ssl
                )
        except (OSError, TimeoutError) as error:
            raise ConnectFailed(str(error)) from error
        finally:
            self._connecting -= 1
        self._all.add(connection)
        return connection

    def give_back(self, connection: Connection) -> None:
        connection.idle_since = self.now()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _sweep(self) -> None:
        now = self.now()
        for connection in list(self._all):
            connection.check_deadline(now)
        while self._idle and now - self._idle[0].idle_since > self.timeouts.idle_s:
            self._idle.pop(0).close()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    async def close(self) -> None:
        """Close every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._all):
            connection.abort()
