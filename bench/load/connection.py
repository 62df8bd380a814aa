"""One caller's connection, and the count of what was answered.

Every answer is checked: status 200, and the exact length of the body where it is known.
"""

import asyncio
import time
from array import array
from collections.abc import Callable, Iterator
from typing import cast

import httptools

from bench import wire
from bench.load.requests import Requests
from bench.orders import Outcome, Shot

now_s = time.perf_counter  # uvloop's own clock has whole milliseconds only
GRACE_S = 10.0  # for the last answers

Done = Callable[["Connection"], None]


class Tally:
    """What has been answered so far, rightly or not."""

    def __init__(self) -> None:
        self.latencies_s = array("d")
        self.errors = 0
        self.complaint = ""

    def wrong(self, complaint: str, count: int = 1) -> None:
        self.errors += count
        self.complaint = self.complaint or complaint

    def outcome(self, elapsed_s: float) -> Outcome:
        ordered = sorted(self.latencies_s)
        return Outcome(
            calls=len(ordered),
            errors=self.errors,
            elapsed_s=elapsed_s,
            p50_ms=_quantile_ms(ordered, 0.5),
            p99_ms=_quantile_ms(ordered, 0.99),
            max_ms=_quantile_ms(ordered, 1.0),
            complaint=self.complaint,
        )


def _quantile_ms(ordered: list[float], quantile: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] * 1000 if ordered else 0.0


class Connection(asyncio.Protocol):
    """One keep-alive connection, one call at a time; tells its owner when a call has ended or the peer hung up."""

    def __init__(self, shot: Shot, requests: Iterator[bytes], tally: Tally, done: Done) -> None:
        self._requests = requests
        self._answer_bytes = shot.answer_bytes
        self._event_bytes = shot.event_bytes
        self._tally = tally
        self._done = done
        self._parser = httptools.HttpResponseParser(self)
        self._received_bytes = 0
        self._opening = self._closing = b""
        self._busy = False
        self._since = 0.0
        self.on_first_byte: Callable[[], None] | None = None
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses
        self.open = True

    def call(self, since: float) -> None:
        """Send the call; its latency counts from `since`, in `now_s`."""
        self._since = since
        self._received_bytes = 0
        self._busy = True
        self._transport.write(next(self._requests))

    def close(self) -> None:
        self._busy = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._opening = str(error).encode()
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        if not self._received_bytes:
            self._opening = body[:200]
            if self.on_first_byte is not None:
                self.on_first_byte()
        self._received_bytes += len(body)
        if self._event_bytes:
            self._closing = (self._closing + body)[-len(wire.DONE) :]

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 200:
            self._tally.wrong(f"status {status}: {self._opening!r}")
        elif self._answer_bytes not in (self._received_bytes, None) or not self._received_bytes:
            self._tally.wrong(f"{self._received_bytes} bytes instead of {self._answer_bytes}: {self._opening!r}")
        elif self._event_bytes and not self._is_whole_stream():
            self._tally.wrong(f"a stream of {self._received_bytes} bytes ends in {self._closing!r}")
        else:
            self._tally.latencies_s.append(now_s() - self._since)
        self._busy = False
        self._done(self)

    def _is_whole_stream(self) -> bool:
        return self._closing == wire.DONE and (self._received_bytes - len(wire.DONE)) % self._event_bytes == 0

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._busy:
            self._busy = False
            self._tally.wrong(f"connection lost in a call: {exc or 'closed'} {self._opening!r}")
            self._done(self)


async def connect(requests: Requests, index: int, tally: Tally, done: Done) -> Connection:
    """Connection number `index` of a load."""
    shot, own = requests.shot, requests.of(index)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(shot, own, tally, done), "127.0.0.1", shot.port)
    return connection
