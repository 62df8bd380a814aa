"""One upstream connection that is asked to become a WebSocket: to 101 it switches, any other answer is an ordinary one.

Only the handshake is read here; what comes behind it belongs to whoever takes the transport over.
"""

import asyncio
from typing import TYPE_CHECKING

import httptools

from gateway.proxy.http1.answer import Answer
from gateway.proxy.http1.errors import AnswerBroken
from gateway.proxy.http1.framing import RequestHead
from gateway.proxy.http1.headers import Headers, connection_options, survey
from gateway.proxy.http1.link import Link
from gateway.proxy.http1.tunnel import Surrendered

if TYPE_CHECKING:
    from gateway.proxy.http1.client import Pool

_SWITCHING = b"HTTP/1.1 101"


def asks_for_websocket(head: RequestHead) -> bool:
    """Whether this is the request of a WebSocket handshake."""
    return head.method == b"GET" and not head.is_http10 and head.length == 0 and _names_websocket(head.headers)


def _names_websocket(headers: Headers) -> bool:
    """Whether the connection is to become a WebSocket.

    >>> _names_websocket([(b"Connection", b"keep-alive, Upgrade"), (b"Upgrade", b"WebSocket")])
    True
    """
    protocols = [value.lower().split(b",") for name, value in headers if name.lower() == b"upgrade"]
    named = {protocol.strip() for line in protocols for protocol in line}
    return b"websocket" in named and b"upgrade" in connection_options(headers)


class SwitchLink(Link):
    """Never idle: it serves one handshake, and what comes of it."""

    __slots__ = ("_arrived", "_switched")

    def __init__(self, pool: "Pool", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(pool, loop)
        self._arrived: bytes | None = b""  # None: an ordinary answer comes
        self._switched = False

    def data_received(self, data: bytes) -> None:
        if self._arrived is None:
            super().data_received(data)
            return
        arrived = self._arrived = self._arrived + data
        if arrived[: len(_SWITCHING)] != _SWITCHING[: len(arrived)]:
            self._arrived = None
            super().data_received(arrived)
        elif b"\r\n\r\n" in arrived:
            self._switch(arrived)
        elif len(arrived) > self._pool.buffers.head_bytes_max:
            self.give_up(AnswerBroken("malformed: head too large"))

    def _switch(self, arrived: bytes) -> None:
        head = _Head()
        try:
            httptools.HttpResponseParser(head).feed_data(arrived)
        except httptools.HttpParserUpgrade as upgrade:
            self._arrived = arrived[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self.give_up(AnswerBroken(f"malformed: {error}"))
            return
        if not _names_websocket(head.headers):
            self.give_up(AnswerBroken("switched to a protocol that was not asked for"))
            return
        asking, self._asking = self._asking, None
        if asking is None or asking.done():
            self.give_up(AnswerBroken("given up"))
            return
        self._switched = True
        self._transport.pause_reading()
        answer = Answer(self, 101, head.reason, head.headers, *survey(head.headers))
        answer.finish()
        asking.set_result(answer)

    def surrender(self, protocol: asyncio.Protocol) -> Surrendered:
        """Leave the switched transport, whose reading is paused, to `protocol`."""
        assert self._switched
        assert self._arrived is not None
        self._transport.set_protocol(protocol)
        return Surrendered(self, self._transport, self._arrived)

    def sweep(self, now: int) -> None:
        if not self._switched:
            super().sweep(now)


class _Head:
    """What llhttp tells of a head."""

    def __init__(self) -> None:
        self.headers: Headers = []
        self.reason = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_status(self, reason: bytes) -> None:
        self.reason += reason
