"""The bench's OpenAI: canned bytes on `asyncio.Protocol`, uvloop and httptools, several times cheaper than any relay.

Run as `python -m bench.upstream PORT`. A request to `/bench/release` ends every running stream at once.
"""

import asyncio
import contextlib
import random
import signal
import sys
from typing import cast

import httptools
import uvloop

from bench import wire

BACKLOG = 16_384
OUT_OF_STEP_S_MAX = 0.02  # streams that start together do not stay in step, as in life
_HEADERS = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Sat, 21 Nov 2026 00:00:00 GMT\r\nx-request-id: req_bench\r\n"
    b"openai-processing-ms: 1\r\nopenai-version: 2020-10-01\r\nx-ratelimit-remaining-requests: 9999\r\n"
)
RELEASE_PATH = b"/bench/release"


def framed(content_type: bytes, body: bytes) -> bytes:
    return _HEADERS + b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (content_type, len(body), body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Canned:
    """The answers, made once, and the streams that run."""

    def __init__(self) -> None:
        self.plain = framed(b"application/json", wire.answer())
        self.stream_head = _HEADERS + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.event = chunk(wire.event())
        self.done = chunk(wire.DONE) + b"0\r\n\r\n"
        self.released = framed(b"text/plain", b"released\n")
        self.running: set[Upstream] = set()


class Upstream(asyncio.Protocol):
    """One connection: one request at a time, answered in the loop's callback that completed it."""

    def __init__(self, canned: Canned, loop: asyncio.AbstractEventLoop) -> None:
        self._canned = canned
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._url = b""
        self._events_sent = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._body.clear()
        self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        if self._url == RELEASE_PATH:
            for stream in tuple(self._canned.running):
                stream.release()
            self._transport.write(self._canned.released)
        elif wire.asks_for_stream(body):
            self._begin_stream(body)
        else:
            self._transport.write(self._canned.plain)

    def _begin_stream(self, body: bytes) -> None:
        self._events, pace_ms = wire.stream_plan(body)
        self._pace_s = pace_ms / 1000
        self._wants_usage = wire.asks_for_usage(body)
        self._events_sent = 0
        self._transport.write(self._canned.stream_head)
        self._canned.running.add(self)
        out_of_step_s = random.random() * min(self._pace_s, OUT_OF_STEP_S_MAX)
        self._timer = self._loop.call_later(out_of_step_s, self._next_event)

    def _next_event(self) -> None:
        if self._events_sent >= self._events:
            self.end_stream()
            return
        self._transport.write(self._canned.event)
        self._events_sent += 1
        self._timer = self._loop.call_later(self._pace_s, self._next_event)

    def end_stream(self) -> None:
        self._stop()
        tail = chunk(wire.usage_event(self._events_sent)) if self._wants_usage else b""
        self._transport.write(tail + self._canned.done)

    def release(self) -> None:
        """End the stream, and the connection too: ten thousand idle ones would stay open in every relay."""
        self.end_stream()
        self._transport.close()

    def _stop(self) -> None:
        self._canned.running.discard(self)
        if self._timer is not None:
            self._timer.cancel()


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    canned = Canned()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Upstream(canned, loop), "127.0.0.1", port, backlog=BACKLOG)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(int(sys.argv[1])))
