"""The listening side: accepts connections, runs one task per request, and stops in good order."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec
import structlog

from gateway.core.errors import GatewayError
from gateway.proxy.http1.edge import Connection
from gateway.proxy.http1.errors import ClientGone
from gateway.proxy.http1.headers import Headers, encode
from gateway.proxy.http1.known import KnownHeads
from gateway.proxy.http1.limits import Limits
from gateway.proxy.http1.request import Request
from gateway.proxy.http1.ticks import Ticker

__all__ = ["ClientGone", "Handler", "Headers", "Limits", "Request", "Server"]

Handler = Callable[[Request], Coroutine[Any, Any, None]]

_BACKLOG = 4096
log = structlog.get_logger(__name__)


class EdgeTicks(msgspec.Struct, frozen=True):
    """The timeouts of `Limits`, in ticks, and the least that must have moved in the two long ones."""

    head: int
    body_idle: int
    keepalive: int
    write_stall: int
    linger: int
    body_bytes_min: int
    write_bytes_min: int


class NoAnswer(Exception):
    """A handler returned without having answered."""


def log_error(request: Request, error: Exception) -> None:
    method, path = request.method.decode("latin-1"), request.path.decode("latin-1")
    log.error("handler failed", method=method, path=path, exc_info=error)


def add_nothing(error: GatewayError) -> Headers:
    return []


class Server:
    """`handler` answers each request. What it raises goes to `on_error`, and becomes a 500 or a broken answer.

    `on_refused` hears of what the edge itself refuses, and returns headers to add.
    """

    def __init__(
        self,
        handler: Handler,
        limits: Limits | None = None,
        *,
        on_error: Callable[[Request, Exception], None] = log_error,
        on_refused: Callable[[GatewayError], Headers] = add_nothing,
    ) -> None:
        self.limits = limits = limits or Limits()
        self.requests = 0
        self.is_draining = False
        self.refused = on_refused
        self._handler = handler
        self._on_error = on_error
        self._ticker = Ticker(limits.sweep_s, self._sweep)
        ticks = self._ticker.ticks
        self.timeouts = EdgeTicks(
            head=ticks(limits.head_timeout_s),
            body_idle=ticks(limits.body_idle_timeout_s),
            keepalive=ticks(limits.keepalive_timeout_s),
            write_stall=ticks(limits.write_stall_timeout_s),
            linger=ticks(limits.linger_timeout_s),
            body_bytes_min=max(1, int(limits.bytes_per_s_min * limits.body_idle_timeout_s)),
            write_bytes_min=max(1, int(limits.bytes_per_s_min * limits.write_stall_timeout_s)),
        )
        self.known_heads = KnownHeads(limits.known_heads_bytes_max)
        self._connections: set[Connection] = set()
        self._running: set[Request] = set()
        self._listener: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._emptied: asyncio.Event | None = None  # only at the end of a drain

    # --- life ----------------------------------------------------------------------------------------------------

    async def start(
        self, host: str | None = None, port: int = 0, *, sock: socket.socket | None = None, reuse_port: bool = False
    ) -> str:
        """Listen on `sock`, or else on `host` and `port`; returns "host:port". Raises OSError."""
        loop = self._loop = asyncio.get_running_loop()

        def connect() -> Connection:
            return Connection(self, loop)

        if sock is not None:
            self._listener = await loop.create_server(connect, sock=sock, backlog=_BACKLOG)
        else:
            self._listener = await loop.create_server(
                connect, host, port, backlog=_BACKLOG, reuse_port=reuse_port or None
            )
        self._ticker.start()
        name, number = self._listener.sockets[0].getsockname()[:2]
        return f"[{name}]:{number}" if ":" in name else f"{name}:{number}"

    async def stop_accepting(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def drain(self, timeout_s: float) -> None:
        """Stop: close idle connections now, give running requests and the taking of their answers `timeout_s`, then cut
        their clients off.

        Returns when all handlers have ended; those that ignore their client's leaving are cancelled in the end.
        """
        await self.stop_accepting()
        self.is_draining = True
        for connection in tuple(self._connections):
            connection.close_if_idle()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ended(None)
                await self._without_connections()
        for connection in tuple(self._connections):
            connection.abort()
        await self._ended(self.limits.abort_grace_s)
        for request in self._running:
            request.task.cancel()
        await self._ended(None)
        await self._without_connections()
        self._ticker.stop()

    async def _without_connections(self) -> None:
        """Wait until none is open."""
        if self._connections:
            self._emptied = asyncio.Event()
            await self._emptied.wait()

    async def _ended(self, timeout_s: float | None) -> None:
        """Wait until all handlers have ended, or for so long."""
        if self._running:
            await asyncio.wait([request.task for request in self._running], timeout=timeout_s)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    @property
    def running(self) -> int:
        """How many handlers run, also those whose client has its answer."""
        return len(self._running)

    # --- for connections -----------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self._ticker.now

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for one more connection."""
        self._connections.add(connection)
        return len(self._connections) <= self.limits.connections_max

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self._emptied is not None and not self._connections:
            self._emptied.set()

    def serve(self, request: Request) -> None:
        """Start the handler of `request`."""
        assert self._loop is not None
        self.requests += 1
        # Named, since making up a name takes longer than all else about a task.
        request.task = asyncio.Task(self._answer(request), loop=self._loop, name="request")
        self._running.add(request)

    async def _answer(self, request: Request) -> None:
        """Have it answered; whatever the handler does, the client gets an answer, or can tell that there is none."""
        try:
            await self._handler(request)
            if not request.ended and not request.gone:
                raise NoAnswer
        except Exception as error:  # noqa: BLE001 - whatever it is goes to `on_error`
            self._failed(request, error)
        except asyncio.CancelledError:
            if not request.ended and not request.gone:
                request.abort()
            raise
        finally:
            self._running.discard(request)

    def _failed(self, request: Request, error: Exception) -> None:
        if not (isinstance(error, ClientGone) and request.gone):
            self._on_error(request, error)
        if request.ended or request.gone:
            return
        if request.started:
            request.abort()
        else:
            failure = GatewayError()
            lines = encode([(b"Content-Type", b"application/json"), *failure.headers()])
            request.respond(500, lines, failure.body())

    def _sweep(self, now: int) -> None:
        for connection in tuple(self._connections):
            connection.sweep(now)
