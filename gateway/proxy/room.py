"""Room for large request bodies: each is bounded by itself, this bounds their sum, so that memory is never theirs.

Room is taken as a body arrives, not as it is announced: or a few callers who announce much and send little would keep
everybody else's bodies out.
"""

from gateway.core.errors import Overloaded
from gateway.proxy.http1.server import Request

# What a connection may buffer anyway is not counted.
SMALL_BYTES_MAX = 64 * 1024


class BodyRoom:
    def __init__(self, bytes_max: int) -> None:
        self._bytes_left = bytes_max

    def share_for(self, request: Request, body_bytes_max: int) -> "Share | None":
        """An empty share for the body of `request`; None if that is small, or too large to be read at all."""
        size = request.received_bytes if request.complete else request.length
        if size is None:
            size = body_bytes_max
        return Share(self, request, size) if SMALL_BYTES_MAX < size <= body_bytes_max else None

    def take(self, size_bytes: int) -> None:
        """Raises `Overloaded` when there is not so much left."""
        if size_bytes > self._bytes_left:
            raise Overloaded(retry_after_s=1)
        self._bytes_left -= size_bytes


class Share:
    """What one body takes of the room, until `leave`."""

    __slots__ = ("_body_bytes_max", "_bytes", "_request", "_room")

    def __init__(self, room: BodyRoom, request: Request, body_bytes_max: int) -> None:
        self._room = room
        self._request = request
        self._body_bytes_max = body_bytes_max
        self._bytes = 0

    async def fill(self) -> None:
        """Take room for twice what has arrived, until that is enough for all; what is behind it is not waited for.

        Raises `Overloaded`, and as `Request.read_body` does.
        """
        request = self._request
        while True:
            received = request.received_bytes
            wanted = received if request.complete else min(2 * received, self._body_bytes_max)
            if received > SMALL_BYTES_MAX:
                self._room.take(wanted - self._bytes)
                self._bytes = wanted
            if request.complete or self._bytes == self._body_bytes_max:
                return
            await request.arrived(max(self._bytes, SMALL_BYTES_MAX) + 1)

    def leave(self) -> None:
        self._room.take(-self._bytes)
