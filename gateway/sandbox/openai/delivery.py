"""Delivery: how an answer reaches the wire: its pace, encoding and pieces, and the ways in which a scenario breaks it.

It writes down in the log entry what was really sent, and never decides what an answer says.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator

import msgspec
from aiohttp import web

from gateway.sandbox.openai.answers import Answer
from gateway.sandbox.openai.completions import Event
from gateway.sandbox.openai.encoders import make_encoder
from gateway.sandbox.openai.log import LogEntry, Outcome, RequestLog
from gateway.sandbox.openai.scenarios import Scenario
from gateway.sandbox.openai.tokens import TokenCounts

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
EVENTS_PER_TURN = 32  # an unpaced stream lets others run this often
_MALFORMED_EVENT = Event(b'data: {"id":"chatcmpl-broken","choices":[{"index":0,"delta":{"content":"\n\n')
_FAILURE = (
    b'{"error":{"message":"The server had an error while processing your request. Sorry about that!",'
    b'"type":"server_error","param":null,"code":null}}'
)


class Pace(msgspec.Struct, frozen=True, gc=False):
    """How fast an answer is generated."""

    ttft_ms: float
    tokens_per_s: float  # 0: as fast as possible

    def generation_s(self, words: int) -> float:
        """When so many words are there."""
        return self.ttft_ms / 1000 + (words / self.tokens_per_s if self.tokens_per_s else 0.0)


class Delivery:
    """Sends one answer to one request, as its scenario orders."""

    def __init__(
        self,
        request: web.Request,
        entry: LogEntry,
        log: RequestLog,
        scenario: Scenario,
        pace: Pace,
        headers: dict[str, str],
        stopping: asyncio.Event,
    ) -> None:
        self._request = request
        self._entry = entry
        self._log = log
        self._scenario = scenario
        self._pace = pace
        self._headers = headers
        self._stopping = stopping
        self._encoder = make_encoder(scenario.encoding)

    async def plain(self, answer: Answer) -> web.StreamResponse:
        """Send a whole body, once it would have been generated."""
        body = answer.body[: len(answer.body) * 2 // 3] if self._scenario.malformed else answer.body
        body = self._encoder.piece(body) + self._encoder.end()
        await self._before_headers()
        if answer.status < 400:
            await _pause(self._pace.generation_s(answer.words))
        self._entry.usage = answer.usage
        if self._scenario.no_content_length or self._breaks or self._scenario.split:
            response = await self._plain_in_parts(answer.status, body)
        else:
            response = web.Response(status=answer.status, body=body, headers=self._all_headers(JSON))
            await self._prepare(response, answer.status)
            await response.write_eof()
            self._entry.answer_bytes = len(body)
        if self._entry.outcome is Outcome.OPEN:  # not broken off
            self._entry.usage_reported = answer.usage_reported
            self._log.end(self._entry, Outcome.ERROR if answer.status >= 400 else Outcome.COMPLETE)
        return response

    @property
    def _breaks(self) -> bool:
        orders = self._scenario
        return orders.cut is not None or orders.reset is not None or orders.stall is not None

    async def _plain_in_parts(self, status: int, body: bytes) -> web.StreamResponse:
        """The same, with its length hidden, its connection broken within, or in pieces."""
        orders = self._scenario
        response = web.StreamResponse(status=status, headers=self._all_headers(JSON))
        if not orders.no_content_length:
            response.content_length = len(body)
        await self._prepare(response, status)
        breaks_at = min(at for at in (orders.stall, orders.cut, orders.reset, len(body)) if at is not None)
        await self._write(response, body[:breaks_at])
        if await self._break_off(breaks_at):
            return response
        await self._write(response, body[breaks_at:])
        await response.write_eof()
        return response

    async def stream(self, events: Iterator[Event], produced: Callable[[int], TokenCounts]) -> web.StreamResponse:
        """Send a stream of events; `produced` says what was consumed after so many words."""
        await self._before_headers()
        response = web.StreamResponse(status=200, headers=self._all_headers(EVENT_STREAM))
        await self._prepare(response, 200)
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        self._entry.usage = produced(0)
        words = 0
        for event in self._ordered(events):
            if await self._break_off(self._entry.events):
                return response
            if self._scenario.fail == self._entry.events:
                return await self._fail(response)
            await _pause(started_s + self._pace.generation_s(words + event.words) - loop.time())
            await self._write(response, self._encoder.piece(event.data))
            if event.words:
                words += event.words
                self._entry.usage = produced(words)
            self._entry.usage_reported |= event.usage
            self._entry.events += 1
            self._log.progressed()
            if self._entry.events % EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
        if await self._break_off(self._entry.events):
            return response
        await self._finish_stream(response)
        self._log.end(self._entry, Outcome.COMPLETE)
        return response

    def _ordered(self, events: Iterator[Event]) -> Iterator[Event]:
        """The events, with a broken one after the first if the scenario asks for it."""
        if self._scenario.malformed:
            yield next(events)
            yield _MALFORMED_EVENT
        yield from events

    async def _fail(self, response: web.StreamResponse) -> web.StreamResponse:
        named = b"event: error\n" if self._entry.path.endswith("/responses") else b""
        await self._write(response, self._encoder.piece(b"%bdata: %b\n\n" % (named, _FAILURE)))
        await self._finish_stream(response)
        self._log.end(self._entry, Outcome.FAILED)
        return response

    async def _finish_stream(self, response: web.StreamResponse) -> None:
        rest = self._encoder.end()
        if rest:
            await self._write(response, rest)
        await response.write_eof()

    async def _before_headers(self) -> None:
        await _pause(self._scenario.slow_headers / 1000)
        if self._scenario.stall == -1:
            await self._stall()

    async def _prepare(self, response: web.StreamResponse, status: int) -> None:
        await response.prepare(self._request)
        self._entry.status = status
        self._log.progressed()

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        split = self._scenario.split
        if split is None:
            if data:
                await response.write(data)
        else:
            for start in range(0, len(data), split):
                await response.write(data[start : start + split])
                await asyncio.sleep(0)  # so that each piece leaves on its own
        self._entry.answer_bytes += len(data)

    async def _break_off(self, sent: int) -> bool:
        """Stall or break the connection if that is due after `sent`; tells whether it was broken."""
        orders = self._scenario
        if orders.stall == sent:
            await self._stall()
        if orders.cut != sent and orders.reset != sent:
            return False
        close(self._request, reset=orders.reset == sent)
        self._log.end(self._entry, Outcome.CUT)
        return True

    async def _stall(self) -> None:
        """Say nothing until the client leaves, or the server stops."""
        await self._stopping.wait()
        raise ConnectionAbortedError("the simulated OpenAI is stopping")

    def _all_headers(self, content_type: str) -> dict[str, str]:
        self._headers["Content-Type"] = content_type
        if self._scenario.encoding is not None:
            self._headers["Content-Encoding"] = self._scenario.encoding
        return self._headers


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def close(request: web.Request, *, reset: bool) -> None:
    """Close the connection under a request: after what was written (FIN), or at once (RST)."""
    transport = request.transport
    if transport is None:
        return
    if not reset:
        transport.close()
        return
    connection: socket.socket = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
