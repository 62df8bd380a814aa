"""Meters: what an answer says about its own cost, read from the same bytes that the caller gets.

A meter never changes what passes, but for one thing: the usage event that the gateway itself asked for is taken out.
What passed is read some events at a time, since that costs a fifth of reading each by itself; so a meter holds at most
`UNREAD_BYTES_MAX` and one event, and as much delivered text as one tokenizer call is worth.
"""

import re
from typing import Any, Protocol

import msgspec

from gateway.core.calls import Endpoint
from gateway.core.sse import EventSplitter, as_array, event_data
from gateway.core.usage import ReportedUsage

EVENT_BYTES_MAX = 8 * 1024 * 1024
TAIL_BYTES = 64 * 1024
UNREAD_BYTES_MAX = 2048


class Delivered:
    """The output that reached the caller, for when upstream tells no usage: tokens counted, text still uncounted."""

    __slots__ = ("text_chars", "texts", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.texts: list[str] = []
        self.text_chars = 0

    def add(self, text: str) -> None:
        self.texts.append(text)
        self.text_chars += len(text)

    def take_texts(self) -> list[str]:
        """Hand out the uncounted text, to be counted by the tokenizer and added to `tokens`."""
        texts, self.texts, self.text_chars = self.texts, [], 0
        return ["".join(texts)] if texts else []

    @property
    def tokens_about(self) -> int:
        """A cheap running figure for the progress of a hold: one token an event, or four characters a token."""
        return self.tokens + max(len(self.texts), self.text_chars // 4)

    @property
    def anything(self) -> bool:
        return self.tokens > 0 or self.text_chars > 0


class Reading:
    """What an answer has said so far of its usage."""

    __slots__ = ("complete", "delivered", "failed", "model", "service_tier", "usage", "usage_final", "usage_unreadable")

    def __init__(self) -> None:
        self.usage: ReportedUsage | None = None
        self.usage_final = False  # nothing can be used any more after what `usage` says
        self.usage_unreadable = False  # a usage was there, and was not one
        self.model = ""
        self.service_tier: str | None = None
        self.complete = False  # the answer's own end was seen
        self.failed = False  # upstream reported an error inside the answer
        self.delivered = Delivered()


class Meter(Protocol):
    """Bytes of an answer's body in (decoded from content codings), bytes for the caller out."""

    @property
    def reading(self) -> Reading:
        """What everything that was fed has said; always the same object."""
        ...

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


# --- one JSON document ---------------------------------------------------------------------------------------------


class _Answer(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"null")
    model: str | None = None
    service_tier: str | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_usage = msgspec.json.Decoder(ReportedUsage | None).decode


def read_answer(body: bytes) -> Reading:
    """Read a whole JSON answer. What cannot be read leaves `usage` None: the settlement decides what that means."""
    reading = Reading()
    try:
        answer = _decode_answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return reading
    reading.complete = True
    reading.model = answer.model or ""
    reading.service_tier = answer.service_tier
    _take_usage(reading, answer.usage)
    reading.usage_final = True
    return reading


def _take_usage(reading: Reading, raw: msgspec.Raw) -> None:
    try:
        usage = _decode_usage(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        reading.usage_unreadable = True
    else:
        reading.usage = usage or reading.usage


_FIELD = re.compile(rb'(?<!\\)"(usage|model|service_tier)"\s*:\s*')


class TailMeter:
    """Meters a JSON answer too large to hold, from its last bytes: OpenAI writes `usage` after the bulk."""

    def __init__(self) -> None:
        self.reading = Reading()
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        return data

    def finish(self) -> bytes:
        for field in reversed(list(_FIELD.finditer(self._tail))):
            # Only a top-level field leaves a rest that closes exactly one object.
            document = read_answer(b"{" + self._tail[field.start() :])
            if document.complete and document.usage is not None:
                self.reading = document
                break
        return b""


# --- event streams -----------------------------------------------------------------------------------------------


class Unread:
    """Bytes that have passed and were not looked at yet."""

    __slots__ = ("_bytes", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._bytes = 0

    def add(self, data: bytes) -> bool:
        """Keep `data` for later; returns whether it is time to look."""
        self._pieces.append(data)
        self._bytes += len(data)
        return self._bytes > UNREAD_BYTES_MAX

    def take(self) -> bytes:
        if not self._bytes:
            return b""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._bytes = 0
        return data


class _FunctionCall(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _FunctionCall | None = None
    custom: _FunctionCall | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _FunctionCall | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: Any = None


_NO_USAGE = msgspec.Raw(b"null")


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NO_USAGE
    model: str | None = None
    service_tier: str | None = None
    error: Any = None


class _Response(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"null")
    model: str | None = None
    service_tier: str | None = None


class _ResponseEvent(msgspec.Struct):
    type: str = ""
    delta: Any = None  # text, but for audio and the like
    response: _Response | None = None
    error: Any = None  # of an error event that has no type but in its SSE field


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_chunks = msgspec.json.Decoder(list[_Chunk]).decode
_decode_response_event = msgspec.json.Decoder(_ResponseEvent).decode
_decode_response_events = msgspec.json.Decoder(list[_ResponseEvent]).decode

_TERMINAL_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class ChunkMeter:
    """Meters a stream of chat completion (or legacy completion) chunks, ended by `[DONE]`.

    Some report usage on the way; it is final in a chunk without choices behind a finish reason, or at `[DONE]`.
    """

    __slots__ = ("_finished", "_reading", "_splitter", "_strip", "_unread")

    def __init__(self, strip_usage_event: bool) -> None:
        self._reading = Reading()
        self._splitter = EventSplitter(EVENT_BYTES_MAX)
        self._unread = Unread()
        self._strip = strip_usage_event
        self._finished = False  # a choice has its finish reason

    @property
    def reading(self) -> Reading:
        self._catch_up()
        return self._reading

    def feed(self, data: bytes) -> bytes:
        if self._strip and not (self._splitter.is_between_events and _is_without_usage(data)):
            return self._feed_by_event(data)
        if self._unread.add(data):
            self._catch_up()
        return data

    def _feed_by_event(self, data: bytes) -> bytes:
        self._catch_up()
        return b"".join([event for event in self._splitter.feed(data) if not self._read(event)])

    def finish(self) -> bytes:
        self._catch_up()
        tail = self._splitter.take_tail()
        is_usage_event = bool(tail) and self._read(tail)
        return b"" if is_usage_event or not self._strip else tail

    def _catch_up(self) -> None:
        data = self._unread.take()
        if not data:
            return
        if self._splitter.is_between_events:
            try:
                chunks = _decode_chunks(as_array(data))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass  # something else than plain JSON events is among them
            else:
                for chunk in chunks:
                    self._note(chunk)
                return
        for event in self._splitter.feed(data):
            self._read(event)

    def _read(self, event: bytes) -> bool:
        """Take note of one event; returns whether it is the usage event, which carries no choice."""
        data = event_data(event)
        if not data:
            return False
        if data == b"[DONE]":
            self._reading.complete = True
            self._reading.usage_final |= not self._reading.failed
            return False
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return self._note(chunk)

    def _note(self, chunk: _Chunk) -> bool:
        reading = self._reading
        if chunk.model:
            reading.model = chunk.model
        if chunk.service_tier is not None:
            reading.service_tier = chunk.service_tier
        if chunk.error is not None:
            reading.failed = True
        for choice in chunk.choices or ():
            _deliver(reading.delivered, choice)
            if choice.finish_reason is not None:
                self._finished = True
        if chunk.choices and reading.usage_final:
            reading.usage_final = False
        if chunk.usage is _NO_USAGE or bytes(chunk.usage) == b"null":
            return False
        _take_usage(reading, chunk.usage)
        reading.usage_final = self._finished and not chunk.choices
        return not chunk.choices


def _is_without_usage(data: bytes) -> bool:
    """Whether `data` is whole events, and surely none of them the usage event."""
    return data.endswith(b"\n\n") and data.count(b'"usage"') == data.count(b'"usage":null') and b"\r" not in data


def _deliver(delivered: Delivered, choice: _Choice) -> None:
    if choice.text:
        delivered.add(choice.text)
    delta = choice.delta
    if delta is None:
        return
    for text in (delta.content, delta.refusal, delta.reasoning_content):
        if text:
            delivered.add(text)
    calls = [call.function or call.custom for call in delta.tool_calls or ()]
    for call in (*calls, delta.function_call):
        if call is not None:
            delivered.add((call.name or "") + (call.arguments or ""))


class ResponseMeter:
    """Meters the event stream of a response, ended by one of its terminal events."""

    __slots__ = ("_reading", "_splitter", "_unread")

    def __init__(self) -> None:
        self._reading = Reading()
        self._splitter = EventSplitter(EVENT_BYTES_MAX)
        self._unread = Unread()

    @property
    def reading(self) -> Reading:
        self._catch_up()
        return self._reading

    def feed(self, data: bytes) -> bytes:
        if self._unread.add(data):
            self._catch_up()
        return data

    def finish(self) -> bytes:
        self._catch_up()
        self._read(self._splitter.take_tail())
        return b""

    def _catch_up(self) -> None:
        data = self._unread.take()
        if not data:
            return
        if self._splitter.is_between_events:
            try:
                events = _decode_response_events(as_array(data))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass  # something else than plain JSON events is among them
            else:
                for event in events:
                    self._note(event)
                return
        for raw in self._splitter.feed(data):
            self._read(raw)

    def _read(self, raw: bytes) -> None:
        data = event_data(raw)
        if not data:
            return
        try:
            event = _decode_response_event(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        self._note(event)

    def _note(self, event: _ResponseEvent) -> None:
        reading = self._reading
        if event.type.endswith(".delta") and isinstance(event.delta, str) and event.delta:
            reading.delivered.add(event.delta)
        if event.type in ("error", "response.failed") or event.error is not None:
            reading.failed = True
        if event.response is not None:
            reading.model = event.response.model or reading.model
            reading.service_tier = event.response.service_tier or reading.service_tier
            _take_usage(reading, event.response.usage)
        if event.type in _TERMINAL_EVENTS:
            reading.complete = reading.usage_final = True


def stream_meter(endpoint: Endpoint, strip_usage_event: bool) -> Meter:
    """The meter for an event stream of this endpoint."""
    return ResponseMeter() if endpoint is Endpoint.RESPONSES else ChunkMeter(strip_usage_event)
