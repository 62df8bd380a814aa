"""One upstream connection: a request out, its answer in, again and again. Who uses it when is `Pool`'s business."""

import asyncio
import select
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import httptools

from gateway.proxy.http1.answer import Answer
from gateway.proxy.http1.errors import AnswerBroken, HeadTimeout, Unanswered
from gateway.proxy.http1.framing import (
    Delimited,
    check_interim,
    check_reason,
    delimited,
    idle_said_s,
    is_framing,
    is_http,
    is_wasteful,
)
from gateway.proxy.http1.headers import Headers, survey
from gateway.proxy.http1.tls import is_end_proven, rest_of
from gateway.proxy.http1.upload import PIECE_BYTES, framed, pieces

if TYPE_CHECKING:
    from gateway.proxy.http1.client import Pool

OnInterim = Callable[[int, bytes, Headers], None]  # gets status, reason and the headers that travel on of a 1xx

# For a request to arrive, and for clocks that differ.
_LEFT_EARLIER_S = 1.0
# A hang-up (elsewhere than on Linux only POLLHUP, which needs no asking for), or bytes that nobody has asked for.
_NO_LONGER_IDLE = getattr(select, "POLLRDHUP", 0) | select.POLLIN


class Link(asyncio.Protocol):
    """`_asking` is set from a request to its answer's head, `_answer` from there to its end; idle: neither."""

    __slots__ = (
        "_answer",
        "_asking",
        "_began",
        "_born",
        "_delimited",
        "_done",
        "_excess",
        "_fruitful_bytes",
        "_head",
        "_headers",
        "_idle",
        "_in_head",
        "_interim",
        "_is_tls",
        "_keep",
        "_loop",
        "_method",
        "_on_interim",
        "_parser",
        "_pieces",
        "_poll",
        "_pool",
        "_reading_paused",
        "_reason",
        "_refusal",
        "_since",
        "_ticker",
        "_transport",
        "_upload",
        "_wire_bytes",
        "_writable",
        "answer_bytes_max",
        "on_body",
    )

    _transport: asyncio.Transport
    _is_tls: bool
    _poll: select.poll

    def __init__(self, pool: "Pool", loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._ticker = pool.ticker
        self._born = self._since = self._ticker.now
        self.answer_bytes_max = pool.buffers.answer_bytes_max
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # no Python frame for a piece
        self._parser = httptools.HttpResponseParser(self)
        self._asking: asyncio.Future[Answer] | None = None
        self._answer: Answer | None = None
        self._upload: asyncio.Task[None] | None = None
        self._writable: asyncio.Event | None = None  # while too much of an upload is buffered
        self._method = b""
        self._on_interim: OnInterim | None = None
        self._reason = b""
        self._headers: Headers = []
        self._head = b""  # what came of an answer until its head was complete
        self._wire_bytes = 0  # of an answer, behind its head
        self._fruitful_bytes = 0  # of those, up to the last of its body
        self._delimited = Delimited.BY_HEAD
        self._in_head = False
        self._began = False  # a byte of the answer has arrived
        self._interim = False  # the head at hand is of a 1xx
        self._done = False  # the answer has ended, in what is being fed
        self._excess = False  # and something follows it
        self._refusal: AnswerBroken | None = None
        self._keep = False
        self._idle = pool.ticks.idle  # so many ticks it may be unused
        self._reading_paused = False

    # --- asking --------------------------------------------------------------------------------------------------

    async def ask(
        self,
        method: bytes,
        head: bytes,
        body: bytes | AsyncIterator[bytes] | None,
        length: int | None,
        on_interim: OnInterim | None,
    ) -> Answer:
        """Send a request; return its answer once its head is there. Raises UpstreamFailed, and what `body` raises."""
        asking: asyncio.Future[Answer] = self._loop.create_future()
        self._asking = asking
        self._method = method
        self._on_interim = on_interim
        self._began = False
        self._since = self._ticker.now
        if body is None:
            self._transport.write(head)
        elif isinstance(body, bytes) and len(body) <= PIECE_BYTES:
            self._transport.write(head + body)
        elif isinstance(body, bytes) and not self._is_tls:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head)
            if isinstance(body, bytes):
                # TLS would encrypt all of it at once while others wait, and not say how much of it is still to be sent.
                length, body = len(body), pieces(body)
            self._upload = self._loop.create_task(self._send_all(framed(body, length)))
            self._upload.add_done_callback(self._sent)
        try:
            return await asking
        except asyncio.CancelledError:
            if self._asking is asking:
                self.give_up(AnswerBroken("given up"))
            elif not asking.cancelled():
                asking.exception()  # nobody is left to hear of it
            raise

    async def _send_all(self, body: AsyncGenerator[bytes, None]) -> None:
        async with aclosing(body):
            async for piece in body:
                if self._writable is not None:
                    await self._writable.wait()
                self._since = self._ticker.now
                self._transport.write(piece)

    def _sent(self, upload: asyncio.Task[None]) -> None:
        if upload.cancelled():
            return
        error = upload.exception()
        if error is None:
            self._upload = None
        else:
            self.give_up(error)

    def is_alive(self) -> bool:
        """Whether the peer has neither hung up nor spoken, asked of the kernel: the loop may not have told yet."""
        return not self._transport.is_closing() and not self._poll.poll(0)

    def close(self) -> None:
        self._transport.close()

    def give_up(self, error: BaseException) -> None:
        """End the connection now; whoever waits for something of it gets `error`."""
        self._transport.abort()
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        asking, self._asking = self._asking, None
        answer, self._answer = self._answer, None
        if self._upload is not None:
            self._upload.cancel()
        if answer is not None:
            answer.fail(error)
        elif asking is not None and not asking.done():
            asking.set_exception(error)

    # --- from the loop -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses
        self._transport.set_write_buffer_limits(self._pool.buffers.write_high_water_bytes)
        self._is_tls = transport.get_extra_info("ssl_object") is not None
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), _NO_LONGER_IDLE)
        self._pool.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._take_rest()
        self._pool.forget(self)
        del self._parser  # a cycle with its callbacks
        self.resume_writing()
        answer, is_by_close = self._answer, self._delimited is Delimited.BY_CLOSE
        if answer is not None and is_by_close and exc is None and is_end_proven(self._transport):
            self._answer = self._asking = None
            if self._upload is not None:
                self._upload.cancel()
            answer.finish()
        elif self._began:
            self._fail(AnswerBroken("cut"))
        else:
            self._fail(Unanswered(*((str(exc),) if exc else ())))

    def _take_rest(self) -> None:
        """Whatever is left of an answer whose connection upstream has ended while reading was paused."""
        self._keep = False
        rest = rest_of(self._transport)
        while self._answer is not None and (data := next(rest, b"")):
            self.data_received(data)

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set()

    def pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._since = self._ticker.now
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self._head = self._head + data if self._head else data
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._excess = True
            if not self._done:
                self._hand_over()
                self.give_up(self._refusal or AnswerBroken(f"malformed: {error}"))
                return
        answer = self._answer
        if self._done:
            self._release()
        elif answer is not None:
            self._since = self._ticker.now
            self._wire_bytes += len(data)
            pieces = self._pieces
            if pieces:
                block = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces.clear()
                answer.receive(block)
                self._fruitful_bytes = self._wire_bytes
            if answer.buffered_bytes > answer.room_bytes:
                self.pause_reading()
            if self._wire_bytes > self._pool.buffers.head_bytes_max and is_wasteful(
                self._wire_bytes,
                answer.received_bytes,
                self._wire_bytes - self._fruitful_bytes,
                self._pool.buffers.head_bytes_max,
            ):
                self.give_up(AnswerBroken("malformed: mostly framing"))
        elif self._asking is None:
            if self._excess:
                self._transport.abort()
        elif len(self._head) > self._pool.buffers.head_bytes_max:
            self.give_up(AnswerBroken("malformed: head too large"))

    def _hand_over(self) -> None:
        pieces = self._pieces
        if pieces and self._answer is not None:
            block = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._answer.receive(block)

    def _release(self) -> None:
        """The answer is complete: hand over its end, and the connection back to the pool."""
        answer, self._answer, self._asking = self._answer, None, None
        assert answer is not None
        self._done = False
        pieces, block = self._pieces, b""
        if pieces:
            block = b"".join(pieces)
            pieces.clear()
            if self._delimited is Delimited.BY_HEAD:
                self._excess, block = True, b""
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.cancel()
        if self._transport.get_write_buffer_size():  # of a body that upstream has not taken, and may never take
            self._transport.abort()
        elif self._keep and not self._excess and upload is None:
            if self._reading_paused:
                self.resume_reading()
            if self._delimited is Delimited.BY_HEAD:
                self._parser = httptools.HttpResponseParser(self)  # the old one may wait for a body
            self._since = self._ticker.now
            self._pool.put_back(self, self._born)
        else:
            self._transport.close()
        # The waiter is woken first, so that what it writes at the end leaves together with the last piece.
        answer.finish()
        if block:
            answer.receive(block)

    def sweep(self, now: int) -> None:
        """Look whether something takes too long."""
        timeouts = self._pool.ticks
        waited = now - self._since
        if self._answer is not None:
            if waited > timeouts.body_idle and not self._reading_paused:
                self.give_up(AnswerBroken("stalled"))
        elif self._asking is not None:
            if waited > timeouts.head:
                self.give_up(HeadTimeout())
        elif waited > self._idle or now - self._born >= timeouts.age:
            self._transport.close()

    # --- llhttp's callbacks --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._in_head = True
        if self._asking is None or self._answer is not None:
            self._excess = True
        else:
            self._began = True

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self._headers.append((name, value))
        elif is_framing(name):  # any other trailer is not passed on
            self._refusal = AnswerBroken("malformed: a trailer says how long the body is")
            raise self._refusal

    def on_headers_complete(self) -> None:
        try:
            self._begin()
        except AnswerBroken as refusal:
            self._refusal = refusal  # what llhttp makes of an exception does not lead back to it
            raise

    def _begin(self) -> None:
        headers, reason = self._headers, self._reason
        self._headers, self._reason, self._in_head = [], b"", False
        asking = self._asking
        if self._excess or asking is None or asking.done():
            raise AnswerBroken("malformed: nothing was asked")
        check_reason(reason)
        parser = self._parser
        version = parser.get_http_version()
        if version != "1.1" and not is_http(self._head):
            raise AnswerBroken("malformed: not HTTP")
        status = parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            check_interim(headers)
            self._interim = True
            if self._on_interim is not None:
                self._on_interim(status, reason, survey(headers)[1])
            return
        if len(headers) > self._pool.buffers.header_count_max:
            raise AnswerBroken("malformed: too many headers")
        fields, travelling = survey(headers)
        self._delimited = delimited(self._method, status, version, headers, fields)
        self._keep = parser.should_keep_alive()
        said = fields.get(b"keep-alive")
        if said is not None:
            self._heed(said)
        self._head, self._wire_bytes, self._fruitful_bytes = b"", 0, 0
        self._on_interim = None  # it leads to the request
        self._answer = answer = Answer(self, status, reason, headers, fields, travelling)
        if self._delimited is Delimited.BY_HEAD:
            self._done = True
        asking.set_result(answer)

    def _heed(self, keep_alive: bytes) -> None:
        """Leave an idle connection before upstream does, or what is sent meanwhile is lost."""
        said_s = idle_said_s(keep_alive)
        if said_s is not None:
            self._idle = min(self._pool.ticks.idle, self._ticker.ticks_within(said_s - _LEFT_EARLIER_S))
            self._keep = self._keep and self._idle >= 0

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        elif self._answer is not None:
            self._done = True
