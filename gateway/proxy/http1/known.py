"""Heads that were parsed and judged before: SDKs send the same one with every call, but for the length of the body.

llhttp's verdict and ours depend on nothing but the head's bytes, and no verdict depends on which number the length is;
so a head whose bytes, without the digits of Content-Length, were accepted once is accepted again without parsing.
Only plain keep-alive heads with one Content-Length are kept; they hold keys, as the connections that sent them do.
"""

import re

from gateway.proxy.http1.framing import RequestHead

# Judged heads hold at most one line of this form: llhttp refuses a second length, and an empty one.
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: (0|[1-9][0-9]{0,11})\r\n")

_HEAD_BYTES_MAX = 4096
_MET_ONCE_MAX = 16_384


def body_length(data: bytes) -> tuple[int, int, int, int] | None:
    """Where the digits of Content-Length start and stop, where the head ends, and the length; None if it has none."""
    end = data.find(b"\r\n\r\n") + 4
    found = _LENGTH.search(data, 0, end) if end > 3 else None
    if found is None:
        return None
    start, stop = found.span(1)
    return start, stop, end, int(found[1])


class KnownHeads:
    """Shared by all connections, the oldest forgotten first. An upgrade, expectation or close is never among them.

    A head is kept when it comes a second time: those that differ in every request, by a trace id say, take no room.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_left = bytes_max
        self._heads: dict[bytes, RequestHead] = {}
        self._met_once: set[int] = set()  # by their hash
        self.get = self._heads.get

    def add(self, raw: bytes, head: RequestHead) -> None:
        """Keep `head`, whose bytes are `raw`, if its like can come again, and has."""
        found = body_length(raw)
        if found is None or len(raw) > _HEAD_BYTES_MAX or not head.keep_alive or head.expects_continue:
            return
        start, stop, end, _ = found
        key = raw[:start] + raw[stop:]
        if end == len(raw) and key not in self._heads and self._is_met_again(hash(key)):
            self._keep(key, head)

    def _is_met_again(self, hashed: int) -> bool:
        met = self._met_once
        if hashed in met:
            met.discard(hashed)
            return True
        if len(met) >= _MET_ONCE_MAX:
            met.clear()
        met.add(hashed)
        return False

    def _keep(self, key: bytes, head: RequestHead) -> None:
        self._heads[key] = head
        self._bytes_left -= len(key)
        while self._bytes_left < 0:
            oldest = next(iter(self._heads))
            del self._heads[oldest]
            self._bytes_left += len(oldest)
