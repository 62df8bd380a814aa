"""Room for large request bodies: each is bounded by itself, this bounds their sum, so that memory is never theirs."""

from gateway.core.errors import Overloaded
from gateway.proxy.http1.server import Request

# What a connection may buffer anyway is not counted.
SMALL_BYTES_MAX = 64 * 1024


class BodyRoom:
    def __init__(self, bytes_max: int, body_bytes_max: int) -> None:
        self._bytes_left = bytes_max
        self._body_bytes_max = body_bytes_max

    def take(self, request: Request) -> int:
        """Keep room for the body of `request`, to be given back; raises `Overloaded` when there is none.

        Returns the bytes that were taken. A body of unknown length is given the largest there may be.
        """
        size = request.length
        if size is None:
            size = request.buffered_bytes if request.complete else self._body_bytes_max
        if size <= SMALL_BYTES_MAX:
            return 0
        size = min(size, self._body_bytes_max)
        if size > self._bytes_left:
            raise Overloaded(retry_after_s=1)
        self._bytes_left -= size
        return size

    def give_back(self, size_bytes: int) -> None:
        self._bytes_left += size_bytes
