"""Meters of event streams: what the events of an answer say about its cost, while they pass.

A meter never changes what passes, but for one thing: the usage event that the gateway itself asked for is taken out.
What passed is read some events at a time, since that costs a fifth of reading each by itself; so a meter holds at most
`UNREAD_BYTES_MAX` and one event, and as much delivered text as one tokenizer call is worth.
"""

from abc import abstractmethod
from typing import Any, Generic, TypeVar

import msgspec

from gateway.core.calls.calls import Endpoint
from gateway.core.calls.meter import Delivered, Meter, Reading, error_code_of, take_usage
from gateway.core.calls.sse import EventSplitter, as_array, event_data

EVENT_BYTES_MAX = 8 * 1024 * 1024
UNREAD_BYTES_MAX = 1024

E = TypeVar("E")


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
    error: Any = None


class _ResponseEvent(msgspec.Struct):
    type: str = ""
    delta: Any = None  # text, but for audio and the like
    response: _Response | None = None
    error: Any = None  # of an error event that has no type but in its SSE field
    code: Any = None  # of one that has


_TERMINAL_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class EventMeter(Generic[E]):
    """What both kinds of streams have in common: `_decoder` reads one event's data, `_decoders` an array of them."""

    __slots__ = ("_reading", "_splitter", "_unread", "_unread_bytes")

    _decoder: msgspec.json.Decoder[E]
    _decoders: msgspec.json.Decoder[list[E]]

    def __init__(self) -> None:
        self._reading = Reading()
        self._splitter = EventSplitter(EVENT_BYTES_MAX)
        self._unread: list[bytes] = []
        self._unread_bytes = 0

    @property
    def reading(self) -> Reading:
        self._catch_up()
        return self._reading

    def feed(self, data: bytes) -> bytes:
        self._unread.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > UNREAD_BYTES_MAX:
            self._catch_up()
        return data

    def finish(self) -> bytes:
        self._catch_up()
        self._read(self._splitter.take_tail())
        return b""

    def _catch_up(self) -> None:
        """Read what has passed."""
        if not self._unread:
            return
        data = b"".join(self._unread)
        self._unread.clear()
        self._unread_bytes = 0
        if self._splitter.is_between_events:
            try:
                events = self._decoders.decode(as_array(data))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass  # something else than plain JSON events is among them
            else:
                for event in events:
                    self._note(event)
                return
        for raw in self._splitter.feed(data):
            self._read(raw)

    def _read(self, raw: bytes) -> bool:
        """Take note of one raw event; returns what `_note` does."""
        data = event_data(raw)
        if not data:
            return False
        try:
            event = self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return self._note(event)

    @abstractmethod
    def _note(self, event: E) -> bool:
        """Take note of one event; returns whether it is the usage event, which carries no choice."""


class ChunkMeter(EventMeter[_Chunk]):
    """Meters a stream of chat completion (or legacy completion) chunks, ended by `[DONE]`.

    Some report usage on the way; it is final in a chunk without choices behind a finish reason, or at `[DONE]`.
    """

    __slots__ = ("_finished", "_strip")

    _decoder = msgspec.json.Decoder(_Chunk)
    _decoders = msgspec.json.Decoder(list[_Chunk])

    def __init__(self, strip_usage_event: bool) -> None:
        super().__init__()
        self._strip = strip_usage_event
        self._finished = False  # a choice has its finish reason

    def feed(self, data: bytes) -> bytes:
        if self._strip and not (self._splitter.is_between_events and _is_without_usage(data)):
            return self._feed_by_event(data)
        self._unread.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > UNREAD_BYTES_MAX:
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

    def _read(self, raw: bytes) -> bool:
        if event_data(raw) == b"[DONE]":
            self._reading.complete = True
            self._reading.usage_final |= not self._reading.failed
            return False
        return super()._read(raw)

    def _note(self, event: _Chunk) -> bool:
        reading = self._reading
        if event.model:
            reading.model = event.model
        if event.service_tier is not None:
            reading.service_tier = event.service_tier
        if event.error is not None:
            reading.failed, reading.error = True, error_code_of(event.error)
        choices = event.choices
        if choices:
            reading.usage_final = False
            for choice in choices:
                _deliver(reading.delivered, choice)
                if choice.finish_reason is not None:
                    self._finished = True
        if event.usage is _NO_USAGE or bytes(event.usage) == b"null":
            return False
        take_usage(reading, event.usage)
        reading.usage_final = self._finished and not choices
        return not choices


def _is_without_usage(data: bytes) -> bool:
    """Whether `data` is whole events, the last of them JSON or `[DONE]`, and surely none of them the usage event."""
    return (
        data.endswith((b"}\n\n", b"]\n\n"))
        and data.count(b'"usage"') == data.count(b'"usage":null')
        and b"\r" not in data
    )


def _deliver(delivered: Delivered, choice: _Choice) -> None:
    delta = choice.delta
    if delta is not None:
        if delta.content:
            delivered.add(delta.content)
        if delta.refusal or delta.reasoning_content or delta.tool_calls or delta.function_call:
            _deliver_other(delivered, delta)
    if choice.text:
        delivered.add(choice.text)


def _deliver_other(delivered: Delivered, delta: _Delta) -> None:
    for text in (delta.refusal, delta.reasoning_content):
        if text:
            delivered.add(text)
    calls = [call.function or call.custom for call in delta.tool_calls or ()]
    for call in (*calls, delta.function_call):
        if call is not None:
            delivered.add((call.name or "") + (call.arguments or ""))


class ResponseMeter(EventMeter[_ResponseEvent]):
    """Meters the event stream of a response, ended by one of its terminal events."""

    __slots__ = ()

    _decoder = msgspec.json.Decoder(_ResponseEvent)
    _decoders = msgspec.json.Decoder(list[_ResponseEvent])

    def _note(self, event: _ResponseEvent) -> bool:
        reading = self._reading
        if event.type.endswith(".delta") and isinstance(event.delta, str) and event.delta:
            reading.delivered.add(event.delta)
        if event.type in ("error", "response.failed") or event.error is not None:
            reading.failed = True
            told = event.error or (event.response.error if event.response is not None else {"code": event.code})
            reading.error = error_code_of(told) or reading.error
        if event.response is not None:
            reading.model = event.response.model or reading.model
            reading.service_tier = event.response.service_tier or reading.service_tier
            take_usage(reading, event.response.usage)
        if event.type in _TERMINAL_EVENTS:
            reading.complete = reading.usage_final = True
        return False


def stream_meter(endpoint: Endpoint, strip_usage_event: bool) -> Meter:
    """The meter for an event stream of this endpoint."""
    return ResponseMeter() if endpoint is Endpoint.RESPONSES else ChunkMeter(strip_usage_event)
