"""The bytes that each connection of a load sends, call after call."""

import time
from collections.abc import Iterator
from itertools import count, cycle, repeat

from bench import wire
from bench.orders import Shot


class Requests:
    """All requests of one load; made once where they repeat, since making them is not what is measured."""

    def __init__(self, shot: Shot) -> None:
        self.shot = shot
        self._heads = [wire.head(key, shot.body, host=f"127.0.0.1:{shot.port}", more=shot.headers) for key in shot.keys]
        self._in_turn = cycle([head + shot.body for head in self._heads]) if shot.every_key else None
        self._traces = count(time.time_ns() << 32)  # no trace comes twice, in this load or another

    def of(self, index: int) -> Iterator[bytes]:
        """The requests of connection `index`, without end."""
        if self._in_turn is not None:
            return self._in_turn
        head = self._heads[index % len(self._heads)]
        return self._traced(head) if self.shot.traced else repeat(head + self.shot.body)

    def _traced(self, head: bytes) -> Iterator[bytes]:
        lines, rest = head[:-2], b"\r\n" + self.shot.body  # its last line is the empty one
        for trace in self._traces:
            yield b"%btraceparent: 00-%032x-%016x-01\r\n%b" % (lines, trace, trace & 0xFFFFFFFFFFFFFFFF, rest)
