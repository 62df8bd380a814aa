"""Realtime sessions: a WebSocket handshake passed on with the gateway's key, then bytes both ways, unread.

What a session uses is not metered. So it is only relayed where the operator has allowed that, and always counted.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from gateway.core.access.callers import Caller
from gateway.core.calls.sessions import Selling, admit_session
from gateway.proxy.http1.server import Request
from gateway.proxy.http1.switch import SwitchLink, asks_for_websocket
from gateway.proxy.http1.tunnel import End, Tunnel, TunnelBounds
from gateway.proxy.relay import Relay
from gateway.proxy.tally import Tally

log = structlog.get_logger(__name__)

MayGoOn = Callable[[], Awaitable[bool]]


class SessionBounds(msgspec.Struct, frozen=True):
    """How many sessions there may be at once, and how long each."""

    running_max: int
    recheck_s: float  # how often it is looked whether the caller may still call
    tunnel: TunnelBounds


class Sessions:
    def __init__(self, relay: Relay, *, selling: Selling, bounds: SessionBounds, tally: Tally) -> None:
        self._relay = relay
        self._selling = selling
        self._bounds = bounds
        self._tally = tally
        self._running = 0

    def __len__(self) -> int:
        return self._running

    async def serve(self, request: Request, caller: Caller, request_id: str, may_go_on: MayGoOn) -> None:
        """Relay one session to its end, which is also when it may go on no more.

        Raises the `GatewayError` that refuses it.
        """
        admit_session(
            self._selling,
            is_websocket=asks_for_websocket(request.head),
            is_followed=request.is_followed,
            running=self._running,
            running_max=self._bounds.running_max,
        )
        self._running += 1
        try:
            opening = b"x-gateway-request-id: %b\r\n" % request_id.encode()
            switched = await self._relay.switch(request, opening)
            if switched is not None:
                await self._tunnel(request, *switched, caller, request_id, may_go_on)
        finally:
            self._running -= 1

    async def _tunnel(
        self, request: Request, link: SwitchLink, lines: bytes, caller: Caller, request_id: str, may_go_on: MayGoOn
    ) -> None:
        if request.gone:
            link.close()
            return
        tunnel = Tunnel(self._bounds.tunnel)
        tunnel.connect(request.switch(lines, tunnel.caller), link.surrender(tunnel.upstream))
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        end = End.CUT
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(tunnel, may_go_on))
                end = await tunnel.run()
                watching.cancel()
        finally:
            self._tally.sessions[end] += 1
            log.info(
                "unmetered session ended",
                request_id=request_id,
                account_id=caller.account_id,
                key_id=caller.key_id,
                end=end,
                seconds=round(loop.time() - began_at, 3),
                sent_bytes=tunnel.caller.received_bytes,
                received_bytes=tunnel.upstream.received_bytes,
            )

    async def _watch(self, tunnel: Tunnel, may_go_on: MayGoOn) -> None:
        while True:
            await asyncio.sleep(self._bounds.recheck_s)
            if not await may_go_on():
                tunnel.cut(End.REVOKED)
                return
