"""Meters: what an answer says about its own cost, read from the same bytes that the caller gets.

A meter never changes what passes, but for one thing: the usage event that the gateway itself asked for is taken out.
It holds no more than one event, and as much delivered text as one tokenizer call is worth.
"""

import re
from typing import Protocol

import msgspec

from gateway.core.calls import Endpoint
from gateway.core.sse import EventSplitter, event_data
from gateway.core.usage import ReportedUsage

EVENT_BYTES_MAX = 8 * 1024 * 1024
TAIL_BYTES = 64 * 1024


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

    __slots__ = ("complete", "delivered", "failed", "model", "service_tier", "usage", "usage_unreadable")

    def __init__(self) -> None:
        self.usage: ReportedUsage | None = None
        self.usage_unreadable = False  # a usage was there, and was not one
        self.model = ""
        self.service_tier: str | None = None
        self.complete = False  # the answer's own end was seen
        self.failed = False  # upstream reported an error inside the answer
        self.delivered = Delivered()


class Meter(Protocol):
    """Bytes of an answer's body in (decoded from content codings), bytes for the caller out."""

    reading: Reading

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


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    model: str | None = None
    service_tier: str | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Response(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"null")
    model: str | None = None
    service_tier: str | None = None


class _ResponseEvent(msgspec.Struct):
    type: str = ""
    delta: msgspec.Raw = msgspec.Raw(b"null")
    response: _Response | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")  # of an error event that has no type but in its SSE field


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_response_event = msgspec.json.Decoder(_ResponseEvent).decode
_decode_text = msgspec.json.Decoder(str).decode

_TERMINAL_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class ChunkMeter:
    """Meters a stream of chat completion (or legacy completion) chunks, ended by `[DONE]`."""

    __slots__ = ("_splitter", "_strip", "reading")

    def __init__(self, strip_usage_event: bool) -> None:
        self.reading = Reading()
        self._splitter = EventSplitter(EVENT_BYTES_MAX)
        self._strip = strip_usage_event

    def feed(self, data: bytes) -> bytes:
        if not self._strip:
            for event in self._splitter.feed(data):
                self._read(event)
            return data
        aligned = self._splitter.is_between_events
        events = self._splitter.feed(data)
        kept = [event for event in events if not self._read(event)]
        if aligned and len(kept) == len(events) and self._splitter.is_between_events:
            return data
        return b"".join(kept)

    def finish(self) -> bytes:
        tail = self._splitter.take_tail()
        is_usage_event = bool(tail) and self._read(tail)
        return b"" if is_usage_event or not self._strip else tail

    def _read(self, event: bytes) -> bool:
        """Take note of one event; returns whether it is the usage event, which carries no choice."""
        data = event_data(event)
        if not data:
            return False
        if data == b"[DONE]":
            self.reading.complete = True
            return False
        reading = self.reading
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if chunk.model:
            reading.model = chunk.model
        if chunk.service_tier is not None:
            reading.service_tier = chunk.service_tier
        if bytes(chunk.error) != b"null":
            reading.failed = True
        for choice in chunk.choices or ():
            _deliver(reading.delivered, choice)
        if bytes(chunk.usage) == b"null":
            return False
        _take_usage(reading, chunk.usage)
        return not chunk.choices


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

    __slots__ = ("_splitter", "reading")

    def __init__(self) -> None:
        self.reading = Reading()
        self._splitter = EventSplitter(EVENT_BYTES_MAX)

    def feed(self, data: bytes) -> bytes:
        for event in self._splitter.feed(data):
            self._read(event)
        return data

    def finish(self) -> bytes:
        self._read(self._splitter.take_tail())
        return b""

    def _read(self, raw: bytes) -> None:
        data = event_data(raw)
        if not data:
            return
        reading = self.reading
        try:
            event = _decode_response_event(data)
            text = _decode_text(event.delta) if bytes(event.delta).startswith(b'"') else ""
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if text and event.type.endswith(".delta"):
            reading.delivered.add(text)
        if event.type in ("error", "response.failed") or bytes(event.error) != b"null":
            reading.failed = True
        if event.response is not None:
            reading.model = event.response.model or reading.model
            reading.service_tier = event.response.service_tier or reading.service_tier
            _take_usage(reading, event.response.usage)
        if event.type in _TERMINAL_EVENTS:
            reading.complete = True


def stream_meter(endpoint: Endpoint, strip_usage_event: bool) -> Meter:
    """The meter for an event stream of this endpoint."""
    return ResponseMeter() if endpoint is Endpoint.RESPONSES else ChunkMeter(strip_usage_event)
