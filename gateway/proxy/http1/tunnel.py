"""Two transports whose bytes are each other's: read on one side, written on the other, unread by anybody between.

A side that is slow holds the other one back. A side that ends its sending ends the other's; the rest then has
`closing_s` to arrive.
"""

import asyncio
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

# What each side of the gateway writes itself; who asks for more protocols than this one gets this one.
SWITCH_LINES = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


class TunnelBounds(msgspec.Struct, frozen=True):
    """How long a tunnel may live."""

    idle_s: float  # without a byte in either direction
    total_s: float
    closing_s: float  # from the first side's end to the other's


class End(StrEnum):
    """Why a tunnel ended."""

    CLOSED = "closed"  # by either side
    IDLE = "idle"
    TOTAL = "total"
    REVOKED = "revoked"  # its caller may call no more
    CUT = "cut"  # by the gateway, which stops


class Owner(Protocol):
    """Whose transport it was, and who goes on to account for it."""

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class Surrendered(NamedTuple):
    """A connection as its owner leaves it to a side."""

    owner: Owner
    transport: asyncio.Transport
    arrived: bytes  # read, and nobody's yet


class Side(asyncio.Protocol):
    """One end of a tunnel."""

    def __init__(self, tunnel: "Tunnel") -> None:
        self._tunnel = tunnel
        self._owner: Owner | None = None
        self._transport: asyncio.Transport | None = None  # None: not there yet, or lost
        self._other: Side | None = None
        self._has_ended = False  # sends no more
        self.received_bytes = 0

    def connect(self, connection: Surrendered, other: "Side") -> None:
        self._owner = connection.owner
        self._transport = connection.transport
        self._other = other

    @property
    def is_lost(self) -> bool:
        return self._transport is None

    # --- from the loop -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self._tunnel.touch()
        if self._other is not None:
            self._other.write(data)

    def pause_writing(self) -> None:
        if self._owner is not None:
            self._owner.pause_writing()
        if self._other is not None:
            self._other.hold_back()

    def resume_writing(self) -> None:
        if self._owner is not None:
            self._owner.resume_writing()
        if self._other is not None:
            self._other.let_go()

    def eof_received(self) -> bool:
        """Pass the end on and stay open for the other direction, if that goes on and the transport can: TLS cannot."""
        self._has_ended = True
        self._tunnel.begin_closing()
        if self._other is None or self._transport is None:
            return False
        self._other.end_sending()
        return self._transport.can_write_eof() and not self._other.close_if_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._owner is not None:
            self._owner.connection_lost(exc)
        if self._other is not None:
            if exc is None:
                self._other.close()
            else:
                self._other.abort()
        self._tunnel.lost()

    # --- from the other side -------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def hold_back(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def let_go(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def end_sending(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def close_if_ended(self) -> bool:
        if self._has_ended:
            self.close()
        return self._has_ended

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Tunnel:
    """`caller` and `upstream` are told apart only by what is counted."""

    def __init__(self, bounds: TunnelBounds) -> None:
        self.caller = Side(self)
        self.upstream = Side(self)
        self._bounds = bounds
        self._loop = asyncio.get_running_loop()
        self._touched_at = self._loop.time()
        self._end = End.CLOSED
        self._over = asyncio.Event()
        self._closing: asyncio.TimerHandle | None = None
        self._watching: asyncio.TimerHandle | None = None

    def connect(self, caller: Surrendered, upstream: Surrendered) -> None:
        """Let the bytes flow: those that were read already, then what comes."""
        self.caller.connect(caller, self.upstream)
        self.upstream.connect(upstream, self.caller)
        for side, connection in ((self.caller, caller), (self.upstream, upstream)):
            side.let_go()
            if connection.arrived:
                side.data_received(connection.arrived)

    async def run(self) -> End:
        """Return when both sides are closed; a caller who cancels this closes them."""
        longest = self._loop.call_later(self._bounds.total_s, self.cut, End.TOTAL)
        self._watch()
        try:
            await self._over.wait()
        except asyncio.CancelledError:
            self.cut(End.CUT)
            raise
        finally:
            for timer in (longest, self._watching, self._closing):
                if timer is not None:
                    timer.cancel()
        return self._end

    # --- for the sides -------------------------------------------------------------------------------------------

    def touch(self) -> None:
        self._touched_at = self._loop.time()

    def begin_closing(self) -> None:
        if self._closing is None:
            self._closing = self._loop.call_later(self._bounds.closing_s, self.cut, End.CLOSED)

    def lost(self) -> None:
        if self.caller.is_lost and self.upstream.is_lost:
            self._over.set()
        else:
            self.begin_closing()

    def _watch(self) -> None:
        idle_at = self._touched_at + self._bounds.idle_s
        if self._loop.time() >= idle_at:
            self.cut(End.IDLE)
        else:
            self._watching = self._loop.call_at(idle_at, self._watch)

    def cut(self, end: End) -> None:
        """Close both sides now."""
        self._end = end
        self.caller.abort()
        self.upstream.abort()
