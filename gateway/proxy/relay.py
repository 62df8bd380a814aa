"""Passing one call's bytes both ways, metering them as they flow. Decides nothing about money.

Whatever happens on either side ends in a `Relayed`: the facts for the settlement, and how to finish the answer with the
headers that only the settlement knows.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import structlog

from gateway.core.calls import Call, Caller
from gateway.core.encodings import CorruptEncoding, Decode, UnknownEncoding, decoder
from gateway.core.endings import Ended
from gateway.core.errors import GatewayError, UpstreamBroken, UpstreamRejected, UpstreamTimeout, UpstreamUnreachable
from gateway.core.meter import Meter, Reading, TailMeter, read_answer, stream_meter
from gateway.proxy.departures import Departures, Disconnect
from gateway.proxy.http1.answer import Answer
from gateway.proxy.http1.client import Pool
from gateway.proxy.http1.errors import AnswerBroken, AnswerTooLarge, ConnectFailed, HeadTimeout, PoolExhausted
from gateway.proxy.http1.headers import forwardable
from gateway.proxy.http1.server import Headers, Request
from gateway.proxy.redact import Redactor, redacted
from gateway.proxy.tally import Tally
from gateway.proxy.watch import Watch

__all__ = ["Disconnect", "Relay", "Relayed"]

log = structlog.get_logger(__name__)

EVENT_STREAM = b"text/event-stream"
IDENTITY = (b"accept-encoding", b"identity")
COMPLAIN_INTERVAL_S = 10.0

# Upstream may be another Tollgate: what these say is about its own books.
OWN_HEADERS = (b"x-gateway-", b"x-credits-", b"x-rate-card")


class Relayed:
    """How a relayed call went. `respond` finishes the answer; a streamed one is finished already."""

    __slots__ = ("_respond", "ended")

    def __init__(self, ended: Ended, respond: Callable[[Headers], None] | None = None) -> None:
        self.ended = ended
        self._respond = respond

    def respond(self, closing: Headers) -> None:
        if self._respond is not None:
            self._respond(closing)


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

    async def free(self, request: Request, id_header: tuple[bytes, bytes]) -> None:
        """Relay an unmetered request, both bodies streamed; raises the `GatewayError` of an upstream that fails."""
        is_over = False
        try:
            async with asyncio.timeout(None) as patience:

                def leave() -> None:
                    if not is_over:
                        patience.reschedule(asyncio.get_running_loop().time())

                request.on_gone(leave)
                await self._free(request, id_header)
        except TimeoutError:
            pass  # nobody waits for it any more
        finally:
            is_over = True

    async def _free(self, request: Request, id_header: tuple[bytes, bytes]) -> None:
        body: AsyncIterator[bytes] | None = request.chunks() if request.method == b"POST" else None
        answer = await self._send(request, self._upstream_headers(request, None), body)
        headers = self._caller_headers(answer)
        self._require_accepted(answer, headers)
        request.on_gone(answer.abort)
        request.start(answer.status, redacted(self._key, answer.reason), [*headers, id_header], length=_length(answer))
        redactor = Redactor(self._key)
        try:
            await self._pump(request, answer, redactor.feed)
        except AnswerBroken:
            request.abort()
        else:
            _write(request, redactor.end())
            request.end()

    # --- metered endpoints ---------------------------------------------------------------------------------------

    async def metered(self, request: Request, caller: Caller, call: Call, opening: Headers, watch: Watch) -> Relayed:
        """Relay a metered call; never raises for what upstream or the caller do."""
        ended = Ended(caller_gone=request.gone)
        if request.gone:  # before upstream heard of it: nothing is asked, nothing consumed
            return Relayed(ended)
        try:
            async with asyncio.timeout(None) as patience:
                is_cancelled = caller.on_disconnect == "cancel"
                with self._departures.watch(request, is_cancelled=is_cancelled, patience=patience):
                    return await self._exchange(request, call, opening, watch, ended)
        except TimeoutError:  # the caller left, and upstream was not done within the drain's bounds
            ended.cut = True
        except GatewayError as error:
            ended.cut = not isinstance(error, UpstreamUnreachable)  # which heard nothing of the call
            return Relayed(ended, _refusal(request, error, opening, self._tally))
        finally:
            ended.caller_gone = request.gone
        return Relayed(ended)

    async def _exchange(self, request: Request, call: Call, opening: Headers, watch: Watch, ended: Ended) -> Relayed:
        answer = await self._send(request, self._upstream_headers(request, call), call.body)
        ended.status = answer.status
        headers = self._caller_headers(answer)
        ended.upstream_request_id = (_value(headers, b"x-request-id") or b"").decode("latin-1")
        self._require_accepted(answer, headers)
        headers += opening
        if answer.status == 200 and (_value(headers, b"content-type") or b"").lower().startswith(EVENT_STREAM):
            meter = stream_meter(call.endpoint, call.strip_usage_event)
            ended.reading = meter.reading
            watch.follow(meter.reading)
            await self._stream(request, answer, headers, meter, call.strip_usage_event, watch, ended)
            return Relayed(ended)
        return await self._document(request, answer, headers, ended)

    async def _stream(
        self,
        request: Request,
        answer: Answer,
        headers: Headers,
        meter: Meter,
        strips: bool,
        watch: Watch,
        ended: Ended,
    ) -> None:
        decode = _decoder(headers, meter.reading)
        if decode is not None and strips:
            # An event can only be taken out of decoded bytes, and every caller can read those.
            headers = _without(headers, b"content-encoding")
        request.start(
            answer.status, redacted(self._key, answer.reason), headers, length=None if strips else _length(answer)
        )

        redactor = Redactor(self._key)

        def relay_decoded(data: bytes) -> bytes:
            out = meter.feed(decode(data) if decode else data)
            watch.fold()
            return redactor.feed(out)

        def relay_encoded(data: bytes) -> bytes:
            if decode and not meter.reading.usage_unreadable:
                try:
                    meter.feed(decode(data))
                    watch.fold()
                except CorruptEncoding:
                    meter.reading.usage_unreadable = True
            return data

        # A coding that cannot be read is passed on whole: there is nothing to meter, and nothing to take out.
        is_opaque = decode is None and meter.reading.usage_unreadable
        transform = relay_encoded if is_opaque or (decode and not strips) else relay_decoded
        try:
            await self._pump(request, answer, transform, ended)
        except (AnswerBroken, CorruptEncoding):
            ended.cut = True
            answer.abort()
            _write(request, redactor.feed(meter.finish()) + redactor.end())
            request.abort()
        else:
            _write(request, redactor.feed(meter.finish()) + redactor.end())
            request.end()

    async def _document(self, request: Request, answer: Answer, headers: Headers, ended: Ended) -> Relayed:
        is_metered = 200 <= answer.status < 300
        try:
            body = await answer.read(self._answer_buffer_bytes_max)
        except asyncio.CancelledError:
            answer.abort()
            raise
        except AnswerTooLarge as held:
            await self._large_document(request, answer, headers, held.received, ended)
            return Relayed(ended)
        except AnswerBroken as error:
            raise UpstreamBroken from error
        if is_metered:
            ended.reading = _read_document(body, headers)

        shown, headers = self._redacted_document(body, headers)

        def respond(closing: Headers) -> None:
            if not request.gone:
                reason = redacted(self._key, answer.reason)
                request.respond(answer.status, headers + closing, shown, reason)

        return Relayed(ended, respond)

    async def _large_document(
        self, request: Request, answer: Answer, headers: Headers, received: bytes, ended: Ended
    ) -> None:
        """An answer too large to hold is passed on as it comes, without the headers that tell its cost."""
        meter = TailMeter()
        decode = _decoder(headers, meter.reading)
        redactor = Redactor(self._key)
        request.start(answer.status, redacted(self._key, answer.reason), headers, length=_length(answer))

        def transform(data: bytes) -> bytes:
            if not meter.reading.usage_unreadable:
                try:
                    meter.feed(decode(data) if decode else data)
                except CorruptEncoding:
                    meter.reading.usage_unreadable = True
            return redactor.feed(data)

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

    def _redacted_document(self, body: bytes, headers: Headers) -> tuple[bytes, Headers]:
        """The body without the upstream's key; one that hides it in a content coding goes out decoded."""
        decode = _decoder(headers, Reading()) if self._key else None
        if decode is None:
            return redacted(self._key, body), headers
        try:
            plain = decode(body)
        except CorruptEncoding:
            return body, headers
        if self._key not in plain:
            return body, headers
        return redacted(self._key, plain), _without(headers, b"content-encoding")

    # --- both ----------------------------------------------------------------------------------------------------

    def _require_accepted(self, answer: Answer, headers: Headers) -> None:
        """Upstream's 401 is about the gateway's key, not the caller's; raises `UpstreamRejected`."""
        if answer.status == 401:
            log.error("upstream refuses the gateway's key", upstream_request_id=_value(headers, b"x-request-id"))
            answer.abort()
            raise UpstreamRejected

    async def _send(self, request: Request, headers: Headers, body: bytes | AsyncIterator[bytes] | None) -> Answer:
        try:
            return await self._pool.send(request.method, request.target, headers, body, length=request.length)
        except ConnectFailed as error:
            self._complain(error)
            raise UpstreamUnreachable(retry_after_s=1) from error
        except PoolExhausted as error:
            raise UpstreamUnreachable("Too many calls are under way to the model provider.", retry_after_s=1) from error
        except HeadTimeout as error:
            self._complain(error)
            raise UpstreamTimeout from error
        except AnswerBroken as error:
            self._complain(error)
            raise UpstreamBroken from error

    def _complain(self, error: Exception) -> None:
        """Tell the operator why upstream fails, once in a while: every call of an outage fails alike."""
        now = asyncio.get_running_loop().time()
        if now >= self._complain_at:
            self._complain_at = now + COMPLAIN_INTERVAL_S
            log.warning("upstream failed", why=str(error) or type(error).__name__)

    async def _pump(
        self, request: Request, answer: Answer, transform: Callable[[bytes], bytes], ended: Ended | None = None
    ) -> None:
        """Write what upstream sends as it comes, and let a slow caller slow upstream down."""

        def sink(data: bytes) -> None:
            out = transform(data)
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

    def _upstream_headers(self, request: Request, call: Call | None) -> Headers:
        """The caller's headers for upstream: its key replaced by ours, its codings limited where we must edit."""
        headers = _without(forwardable(request.headers), b"authorization")
        if call is not None and call.strip_usage_event:
            headers = [*_without(headers, b"accept-encoding"), IDENTITY]
        if self._authorization is not None:
            headers.append(self._authorization)
        return headers

    def _caller_headers(self, answer: Answer) -> Headers:
        headers = [field for field in forwardable(answer.headers) if not field[0].lower().startswith(OWN_HEADERS)]
        if self._key and any(self._key in value for _, value in headers):
            headers = [(name, redacted(self._key, value)) for name, value in headers]
        return headers


def _refusal(request: Request, error: GatewayError, opening: Headers, tally: Tally) -> Callable[[Headers], None]:
    def respond(_: Headers) -> None:
        tally.refused(error.code)
        if not request.gone:
            headers = [(b"content-type", b"application/json"), *error.headers(), opening[0]]
            request.respond(error.status, headers, error.body())

    return respond


def _read_document(body: bytes, headers: Headers) -> Reading:
    reading = Reading()
    decode = _decoder(headers, reading)
    if reading.usage_unreadable:
        return reading
    try:
        return read_answer(decode(body) if decode else body)
    except CorruptEncoding:
        reading.usage_unreadable = True
        return reading


def _decoder(headers: Headers, reading: Reading) -> Decode | None:
    codings = [value for name, value in headers if name.lower() == b"content-encoding"]
    if not codings:
        return None
    try:
        return decoder(b",".join(codings).decode("latin-1"))
    except UnknownEncoding:
        reading.usage_unreadable = True
        return None


def _write(request: Request, data: bytes) -> None:
    if data and not request.gone:
        request.write(data)


def _value(headers: Headers, name: bytes) -> bytes | None:
    return next((value for key, value in headers if key.lower() == name), None)


def _without(headers: Headers, name: bytes) -> Headers:
    return [(key, value) for key, value in headers if key.lower() != name]


def _length(answer: Answer) -> int | None:
    value = _value(answer.headers, b"content-length")
    return int(value) if value is not None and value.isdigit() else None
