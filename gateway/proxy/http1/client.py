"""The upstream side: a pool of keep-alive connections to one origin, last used first taken.

A request is sent a second time only when it is idempotent, its body is at hand, and the connection it went out on had
been used before and closed without a byte of an answer (RFC 9110 §9.2.2). A POST never is; instead the kernel is asked
just before it leaves whether the peer has hung up.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from ssl import SSLContext
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from gateway.proxy.http1.answer import Answer
from gateway.proxy.http1.errors import (
    AnswerBroken,
    AnswerTooLarge,
    ConnectFailed,
    HeadTimeout,
    PoolExhausted,
    Unanswered,
    UpstreamFailed,
)
from gateway.proxy.http1.headers import Headers, encode
from gateway.proxy.http1.limits import Buffers, Timeouts
from gateway.proxy.http1.link import Link, OnInterim
from gateway.proxy.http1.names import Name
from gateway.proxy.http1.switch import SwitchLink
from gateway.proxy.http1.ticks import Ticker
from gateway.proxy.http1.tunnel import SWITCH_LINES

__all__ = [
    "Answer",
    "AnswerBroken",
    "AnswerTooLarge",
    "Buffers",
    "ConnectFailed",
    "HeadTimeout",
    "Pool",
    "PoolExhausted",
    "Timeouts",
    "Unanswered",
    "UpstreamFailed",
]

L = TypeVar("L", bound=Link)

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
_WITHOUT_BODY = frozenset({b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"})


class UpstreamTicks(msgspec.Struct, frozen=True):
    """The timeouts of `Timeouts`, in ticks."""

    head: int
    body_idle: int
    idle: int
    age: int


class Pool:
    """Connections to `origin` (scheme, host and perhaps port), whose name is looked up for each new one."""

    def __init__(
        self,
        origin: str,
        *,
        timeouts: Timeouts | None = None,
        buffers: Buffers | None = None,
        connections_max: int = 20_000,
        ssl: SSLContext | None = None,
    ) -> None:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or parts.hostname is None or parts.path not in ("", "/"):
            raise ValueError(f"not an origin: {origin}")
        if (ssl is not None) != (parts.scheme == "https"):
            raise ValueError("an https origin needs a TLS context, and no other does")
        self._ssl = ssl
        self._host_line = b"Host: %b\r\n" % parts.netloc.rpartition("@")[2].encode("ascii")
        timeouts = timeouts or Timeouts()
        self._name = Name(parts.hostname, parts.port or (443 if ssl else 80), connect_s=timeouts.connect_s)
        self.buffers = buffers or Buffers()
        self._connections_max = connections_max
        self.ticker = Ticker(self.buffers.sweep_s, self._sweep)
        ticks = self.ticker.ticks
        self.ticks = UpstreamTicks(
            head=ticks(timeouts.head_s),
            body_idle=ticks(timeouts.body_idle_s),
            idle=ticks(timeouts.idle_s),
            age=ticks(timeouts.age_s_max),
        )
        self._links: set[Link] = set()
        self._idle: dict[Link, None] = {}
        self._connecting = 0
        self._is_closed = False
        self._emptied: asyncio.Event | None = None  # only while closing
        self.requests = 0

    # --- asking --------------------------------------------------------------------------------------------------

    async def send(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
        *,
        length: int | None = None,
    ) -> Answer:
        """Send a request; return its answer when the head of it is there.

        `headers` are end-to-end ones. Otherwise as `ask`.
        """
        return await self.ask(method, self.start_of_head(method, target, headers), body, length=length)

    def start_of_head(self, method: bytes, target: bytes, headers: Headers) -> bytes:
        """A request's head, but for what delimits its body: the same for every request with these headers."""
        return b"%b %b HTTP/1.1\r\n%b%b" % (method, target, encode(headers), self._host_line)

    async def ask(
        self,
        method: bytes,
        start: bytes,
        body: bytes | AsyncIterator[bytes] | None,
        *,
        length: int | None = None,
        on_interim: OnInterim | None = None,
    ) -> Answer:
        """Send the request whose head starts so; return its answer when the head of it is there.

        An iterated body is sent chunked, or as it is when its `length` is known. `on_interim` hears of each 1xx.
        Raises ConnectFailed or PoolExhausted (nothing was sent), HeadTimeout, Unanswered, AnswerBroken, and what
        `body` raises.
        """
        if isinstance(body, bytes) and (body or method not in _WITHOUT_BODY):
            head = b"%bContent-Length: %d\r\n\r\n" % (start, len(body))
        elif not body:
            head = start + (b"\r\n" if method in _WITHOUT_BODY else b"Content-Length: 0\r\n\r\n")
        elif length is None:
            head = start + b"Transfer-Encoding: chunked\r\n\r\n"
        else:
            head = b"%bContent-Length: %d\r\n\r\n" % (start, length)
        self.requests += 1
        link = self._take()
        if link is not None:
            try:
                return await link.ask(method, head, body, length, on_interim)
            except Unanswered:
                if method not in _IDEMPOTENT or not (body is None or isinstance(body, bytes)):
                    raise
        link = await self._connect(Link)
        return await link.ask(method, head, body, length, on_interim)

    async def switch(self, target: bytes, headers: Headers) -> tuple[Answer, SwitchLink]:
        """Ask for a WebSocket on a connection of its own; returns the answer, and the link to take over if it is 101.

        Raises as `send` does.
        """
        head = b"%b%b\r\n" % (self.start_of_head(b"GET", target, headers), SWITCH_LINES)
        self.requests += 1
        link = await self._connect(SwitchLink)
        return await link.ask(b"GET", head, None, None, None), link

    def _take(self) -> Link | None:
        idle = self._idle
        while idle:
            link, _ = idle.popitem()
            if link.is_alive():
                return link
            link.close()
        return None

    async def _connect(self, kind: type[L]) -> L:
        if self._is_closed or len(self._links) + self._connecting >= self._connections_max:
            raise PoolExhausted
        self.ticker.start()
        self._connecting += 1
        try:
            return await self._name.reach(partial(self._open, kind))
        except OSError as error:  # TimeoutError, a failed look-up and a refused certificate are OSErrors, too
            raise ConnectFailed(str(error) or type(error).__name__) from error
        finally:
            self._connecting -= 1

    async def _open(self, kind: type[L], address: str) -> L:
        loop = asyncio.get_running_loop()
        link = kind(self, loop)
        server_hostname = self._name.host if self._ssl else None
        try:
            await loop.create_connection(
                lambda: link, address, self._name.port, ssl=self._ssl, server_hostname=server_hostname
            )
        except (OSError, asyncio.CancelledError):
            self.forget(link)  # uvloop does not tell a protocol whose making is cancelled that it is lost
            raise
        return link

    # --- for links -----------------------------------------------------------------------------------------------

    def opened(self, link: Link) -> None:
        self._links.add(link)

    def put_back(self, link: Link, born: int) -> None:
        """`link` is idle: keep it for the next request, unless it is too old."""
        if self._is_closed or self.ticker.now - born >= self.ticks.age:
            link.close()
        else:
            self._idle[link] = None

    def forget(self, link: Link) -> None:
        self._links.discard(link)
        self._idle.pop(link, None)
        if self._emptied is not None and not self._links:
            self._emptied.set()

    # --- life ----------------------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many are open, idle or not."""
        return len(self._links)

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def close(self) -> None:
        """End all connections; answers under way are broken."""
        self._is_closed = True
        self.ticker.stop()
        for link in tuple(self._links):
            link.give_up(AnswerBroken("given up"))
        if self._links:
            self._emptied = asyncio.Event()
            await self._emptied.wait()

    def _sweep(self, now: int) -> None:
        for link in tuple(self._links):
            link.sweep(now)
