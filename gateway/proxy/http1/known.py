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


def body_length(data: bytes) -> tuple[int, int, int, int] | None:
    """Where the digits of Content-Length start and stop, where the head ends, and the length; None if it has none."""
    end = data.find(b"\r\n\r\n") + 4
    found = _LENGTH.search(data, 0, end) if end > 3 else None
    if found is None:
        return None
    start, stop = found.span(1)
    return start, stop, end, int(found[1])


class KnownHeads:
    """Shared by all connections, the oldest forgotten first. An upgrade, expectation or close is never among them."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_left = bytes_max
        self._heads: dict[bytes, RequestHead] = {}
        self.get = self._heads.get

    def add(self, raw: bytes, head: RequestHead) -> None:
        """Keep `head`, whose bytes are `raw`, if its like can come again."""
        found = body_length(raw)
        if found is None or len(raw) > _HEAD_BYTES_MAX or not head.keep_alive or head.expects_continue:
            return
        start, stop, end, _ = found
        key = raw[:start] + raw[stop:]
        if end != len(raw) or key in self._heads:
            return
        self._heads[key] = head
        self._bytes_left -= len(key)
        while self._bytes_left < 0:
            oldest = next(iter(self._heads))
            del self._heads[oldest]
            self._bytes_left += len(oldest)
