"""Passing one call's bytes both ways, metering them as they flow. Decides nothing about money.

Whatever happens on either side ends in a `Relayed`: the facts for the settlement, and how to finish the answer with the
headers that only the settlement knows.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from time import monotonic

import structlog

from gateway.core.access.callers import Caller
from gateway.core.calls.calls import Call
from gateway.core.calls.encodings import CorruptEncoding
from gateway.core.calls.endings import Ended, Fault
from gateway.core.calls.meter import Meter, TailMeter
from gateway.core.calls.stream_meters import stream_meter
from gateway.core.errors import GatewayError, UpstreamBroken, UpstreamRejected, UpstreamTimeout, UpstreamUnreachable
from gateway.proxy.bodies import Coding, Transform, beside, read_document, streamed
from gateway.proxy.departures import Departures, Disconnect
from gateway.proxy.http1.answer import Answer
from gateway.proxy.http1.client import Pool
from gateway.proxy.http1.errors import (
    AnswerBroken,
    AnswerTooLarge,
    ConnectFailed,
    HeadTimeout,
    PoolExhausted,
    UpstreamFailed,
)
from gateway.proxy.http1.framing import RequestHead
from gateway.proxy.http1.headers import Headers, encode, without
from gateway.proxy.http1.server import Request
from gateway.proxy.http1.switch import SwitchLink
from gateway.proxy.redact import Redactor, redacted
from gateway.proxy.slicing import Slicing
from gateway.proxy.subprotocols import without_keys
from gateway.proxy.tally import Tally
from gateway.proxy.watch import FOLD_TEXT_CHARS, Watch

__all__ = ["Disconnect", "Relay", "Relayed"]

log = structlog.get_logger(__name__)

EVENT_STREAM = b"text/event-stream"
IDENTITY = (b"accept-encoding", b"identity")
JSON = b"content-type: application/json\r\n"
COMPLAIN_INTERVAL_S = 10.0

# Upstream may be another Tollgate: what these say is about its own books.
OWN_HEADERS = (b"x-gateway-", b"x-credits-", b"x-rate-card")


class Relayed:
    """How a relayed call went. `respond` finishes the answer; a streamed one is finished already."""

    __slots__ = ("_body", "_lines", "_reason", "_request", "_status", "ended")

    def __init__(self, ended: Ended) -> None:
        self.ended = ended
        self._request: Request | None = None

    def answer_with(self, request: Request, status: int, reason: bytes | None, lines: bytes, body: bytes) -> "Relayed":
        """Have `respond` send this."""
        self._request, self._status, self._reason, self._lines, self._body = request, status, reason, lines, body
        return self

    def respond(self, closing: bytes) -> None:
        """Finish the answer, with these header lines."""
        request = self._request
        if request is not None and not request.gone:
            request.respond(self._status, self._lines + closing, self._body, self._reason)


class Relay:
    def __init__(
        self, pool: Pool, *, upstream_key: str, disconnect: Disconnect, answer_buffer_bytes_max: int, tally: Tally
    ) -> None:
        self._pool = pool
        self._key = upstream_key.encode()
        self._authorization = (b"authorization", b"Bearer " + self._key) if upstream_key else None
        self._answer_buffer_bytes_max = answer_buffer_bytes_max
        self._tally = tally
        self._complain_at = 0.0
        self._departures = Departures(disconnect)

    @property
    def draining(self) -> int:
        """How many answers are read to their end after their caller left."""
        return len(self._departures)

    def stop_draining(self) -> None:
        """From now on, upstream is closed as soon as its caller is gone: the gateway is about to exit."""
        self._departures.stop()

    # --- free endpoints ------------------------------------------------------------------------------------------

    async def free(self, request: Request, opening: bytes) -> None:
        """Relay an unmetered request, both bodies streamed; raises the `GatewayError` of an upstream that fails."""
        with self._departures.attended(request):
            body: AsyncIterator[bytes] | None = request.chunks() if request.method == b"POST" else None
            await self._pass_on(request, await self._send(request, body, is_edited=False), opening)

    async def switch(self, request: Request, opening: bytes) -> tuple[SwitchLink, bytes] | None:
        """Pass a WebSocket handshake on; returns the switched link and the header lines for the caller.

        None when upstream refused, which was relayed as any answer, or when the caller left.
        """
        with self._departures.attended(request):
            headers = self._with_our_key(without_keys(request.head.travelling))
            try:
                answer, link = await self._pool.switch(request.target, headers)
            except UpstreamFailed as error:
                raise self._explained(error) from error
            if answer.status == 101:
                return link, self._caller_lines(answer.travelling) + opening
            await self._pass_on(request, answer, opening)
        return None

    async def _pass_on(self, request: Request, answer: Answer, opening: bytes) -> None:
        lines = self._caller_lines(answer.travelling)
        self._require_accepted(answer)
        request.on_gone(answer.abort)
        redactor = Redactor(self._key)
        request.start(answer.status, redacted(self._key, answer.reason), lines + opening, length=_length(answer))
        try:
            await self._pump(request, answer, redactor.feed)
        except (AnswerBroken, GatewayError):  # the latter of the caller's body, where upstream answers before its end
            request.abort()
        else:
            _write(request, redactor.end())
            request.end()

    # --- metered endpoints ---------------------------------------------------------------------------------------

    async def metered(
        self,
        request: Request,
        caller: Caller,
        call: Call,
        opening: bytes,
        watch: Watch,
        slicing: Slicing | None = None,
    ) -> Relayed:
        """Relay a metered call; never raises for what upstream or the caller do. `opening`: header lines to add."""
        ended = Ended(caller_gone=request.gone)
        if request.gone:  # before upstream heard of it: nothing is asked, nothing consumed
            return Relayed(ended)
        departure = self._departures.watch(request, is_cancelled=caller.on_disconnect == "cancel")
        try:
            return await self._exchange(request, call, opening, watch, slicing, ended)
        except asyncio.CancelledError:
            if not departure.is_cut or request.task.cancelling() > 1:  # the gateway exits
                raise
            ended.cut = True  # the caller left, and upstream was not done within the drain's bounds
        except (UpstreamFailed, GatewayError) as failure:
            error = failure if isinstance(failure, GatewayError) else self._explained(failure)
            ended.cut = not isinstance(error, UpstreamUnreachable)  # which heard nothing of the call
            ended.fault = _fault(failure)
            self._tally.refused(error.code)
            lines = JSON + encode(error.headers()) + opening
            return Relayed(ended).answer_with(request, error.status, None, lines, error.body())
        finally:
            departure.over()
            ended.caller_gone = request.gone
        return Relayed(ended)

    async def _exchange(
        self, request: Request, call: Call, opening: bytes, watch: Watch, slicing: Slicing | None, ended: Ended
    ) -> Relayed:
        edits = call.strip_usage_event or slicing is not None
        start = self._start_of_head(request.head, edits)
        inform = partial(self._inform, request)
        asked_at = monotonic()
        answer = await self._pool.ask(request.head.method, start, call.body, on_interim=inform)
        ended.status = answer.status
        ended.upstream_request_id = answer.fields.get(b"x-request-id", b"").decode("latin-1")
        self._require_accepted(answer)
        if answer.status == 200 and answer.fields.get(b"content-type", b"").lower().startswith(EVENT_STREAM):
            ended.first_byte_ms = round((monotonic() - asked_at) * 1000)
            meter = stream_meter(call.endpoint, call.strip_usage_event)
            watch.follow(meter)
            try:
                await self._stream(request, answer, opening, meter, edits, watch, slicing, ended)
            finally:
                ended.reading = meter.reading
            return Relayed(ended)
        return await self._document(request, answer, opening, ended)

    async def _stream(
        self,
        request: Request,
        answer: Answer,
        opening: bytes,
        meter: Meter,
        edits: bool,
        watch: Watch,
        slicing: Slicing | None,
        ended: Ended,
    ) -> None:
        coding = Coding(answer)
        # An event can only be taken out of decoded bytes, and every caller can read those.
        dropped = b"content-encoding" if edits and coding.decode is not None else b""
        request.start(
            answer.status,
            redacted(self._key, answer.reason),
            self._caller_lines(without(answer.travelling, dropped)) + opening,
            length=None if edits else _length(answer),
        )
        answer.forget_fields()
        redactor = Redactor(self._key)
        try:
            if slicing is None:
                transform = streamed(meter, coding, redactor, edits=edits)
                await self._pump(request, answer, transform, ended, watch)
            else:
                await slicing.pass_on(request, answer, coding, redactor, meter, ended)
        except (AnswerBroken, CorruptEncoding):
            ended.cut = True
            answer.abort()
            _write(request, redactor.feed(meter.finish()) + redactor.end())
            request.abort()
        else:
            _write(request, redactor.feed(meter.finish()) + redactor.end())
            request.end()

    async def _document(self, request: Request, answer: Answer, opening: bytes, ended: Ended) -> Relayed:
        try:
            body = await answer.read(self._answer_buffer_bytes_max)
        except asyncio.CancelledError:
            answer.abort()
            raise
        except AnswerTooLarge as held:
            await self._large_document(request, answer, opening, held.received, ended)
            return Relayed(ended)
        coding = Coding(answer)
        reading, plain = read_document(body, coding)
        if 200 <= answer.status < 300:
            ended.reading = reading
        travelling = answer.travelling
        if self._key and self._key in plain:
            body = redacted(self._key, plain)
            if coding.decode is not None:
                travelling = without(travelling, b"content-encoding")
        lines = self._caller_lines(travelling) + opening
        return Relayed(ended).answer_with(request, answer.status, redacted(self._key, answer.reason), lines, body)

    async def _large_document(
        self, request: Request, answer: Answer, opening: bytes, received: bytes, ended: Ended
    ) -> None:
        """An answer too large to hold is passed on as it comes, without the headers that tell its cost."""
        meter, redactor = TailMeter(), Redactor(self._key)
        transform = beside(meter, Coding(answer), redactor.feed)
        lines = self._caller_lines(answer.travelling) + opening
        request.start(answer.status, redacted(self._key, answer.reason), lines, length=_length(answer))
        ended.reading = meter.reading
        ended.sent_any = not request.gone
        try:
            _write(request, transform(received))
            await self._pump(request, answer, transform, ended)
        except AnswerBroken:
            ended.cut = True
            answer.abort()
            request.abort()
        else:
            if not meter.reading.usage_unreadable:
                meter.finish()
                ended.reading = meter.reading
            _write(request, redactor.end())
            request.end()

    # --- both ----------------------------------------------------------------------------------------------------

    def _require_accepted(self, answer: Answer) -> None:
        """Upstream's 401 is about the gateway's key, not the caller's; raises `UpstreamRejected`."""
        if answer.status == 401:
            log.error("upstream refuses the gateway's key", upstream_request_id=answer.get(b"x-request-id"))
            answer.abort()
            raise UpstreamRejected

    async def _send(self, request: Request, body: bytes | AsyncIterator[bytes] | None, *, is_edited: bool) -> Answer:
        start = self._start_of_head(request.head, is_edited)
        try:
            inform = partial(self._inform, request)
            return await self._pool.ask(request.method, start, body, length=request.length, on_interim=inform)
        except UpstreamFailed as error:
            raise self._explained(error) from error

    def _inform(self, request: Request, status: int, reason: bytes, travelling: Headers) -> None:
        """Pass an interim answer on (RFC 9110 §15.2)."""
        request.inform(status, redacted(self._key, reason), self._caller_lines(travelling))

    def _explained(self, error: UpstreamFailed) -> GatewayError:
        """What the caller is told of an upstream that did not answer."""
        if isinstance(error, PoolExhausted):
            return UpstreamUnreachable("Too many calls are under way to the model provider.", retry_after_s=1)
        self._complain(error)
        if isinstance(error, ConnectFailed):
            return UpstreamUnreachable(retry_after_s=1)
        return UpstreamTimeout() if isinstance(error, HeadTimeout) else UpstreamBroken()

    def _complain(self, error: Exception) -> None:
        """Tell the operator why upstream fails, once in a while: every call of an outage fails alike."""
        now = asyncio.get_running_loop().time()
        if now >= self._complain_at:
            self._complain_at = now + COMPLAIN_INTERVAL_S
            log.warning("upstream failed", why=str(error) or type(error).__name__)

    async def _pump(
        self,
        request: Request,
        answer: Answer,
        transform: Transform,
        ended: Ended | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Write what upstream sends as it comes, and let a slow caller slow upstream down."""

        def sink(data: bytes) -> None:
            out = transform(data)
            if watch is not None and watch.delivered.text_chars > FOLD_TEXT_CHARS:
                watch.fold()
            if not out or request.gone:
                return
            request.write(out)
            if ended is not None:
                ended.sent_any = True
            if request.paused:
                answer.pause()

        request.on_resume(answer.resume)
        request.on_gone(answer.resume)  # nobody is left to be slow
        try:
            await answer.pump(sink)
        except asyncio.CancelledError:
            answer.abort()
            raise

    def _start_of_head(self, head: RequestHead, is_edited: bool) -> bytes:
        """The caller's head for upstream: its key replaced by ours, its codings limited where we must edit."""
        note = "upstream, edited" if is_edited else "upstream"
        start: bytes | None = head.notes.get(note)
        if start is None:
            headers = head.travelling
            if is_edited:
                headers = [*without(headers, b"accept-encoding"), IDENTITY]
            headers = self._with_our_key(headers)
            start = head.notes[note] = self._pool.start_of_head(head.method, head.target, headers)
        return start

    def _with_our_key(self, headers: Headers) -> Headers:
        headers = without(headers, b"authorization")
        return headers if self._authorization is None else [*headers, self._authorization]

    def _caller_lines(self, travelling: Headers) -> bytes:
        """Upstream's header lines for the caller: nothing of another Tollgate's books, nor of our key."""
        lines = encode(travelling)
        lower = b"\n" + lines.lower()
        if b"\nx-gateway-" in lower or b"\nx-credits-" in lower or b"\nx-rate-card" in lower:
            lines = encode([field for field in travelling if not field[0].lower().startswith(OWN_HEADERS)])
        return redacted(self._key, lines) if self._key and self._key in lines else lines


def _fault(failure: UpstreamFailed | GatewayError) -> Fault | None:
    """None: upstream is not to blame."""
    if isinstance(failure, ConnectFailed):
        return Fault.UNREACHABLE
    if isinstance(failure, HeadTimeout):
        return Fault.TIMEOUT
    return Fault.BROKEN if isinstance(failure, AnswerBroken) else None


def _write(request: Request, data: bytes) -> None:
    if data and not request.gone:
        request.write(data)


def _length(answer: Answer) -> int | None:
    value = answer.get(b"content-length")
    return int(value) if value is not None and value.isdigit() else None
