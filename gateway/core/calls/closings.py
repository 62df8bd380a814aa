"""Closings: the events with which the gateway itself ends a stream at its output limit, as upstream would have.

A closing reads what passes towards the caller, since the last events repeat its ids and name what is still open.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

from gateway.core.calls.calls import Call, Endpoint
from gateway.core.calls.sse import event_data
from gateway.core.calls.usage import Usage

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode

# Where a delta's text goes: into which field of its part, or of its item.
_OF_PARTS = {"response.output_text.delta": "text", "response.refusal.delta": "refusal"}
_OF_ITEMS = {"response.function_call_arguments.delta": "arguments", "response.custom_tool_call_input.delta": "input"}


class Closing(Protocol):
    def note(self, event: bytes) -> None:
        """Read one raw event that passes."""
        ...

    def close(self, usage: Usage) -> bytes:
        """The events that end the stream."""
        ...


def closing_of(call: Call) -> Closing:
    return ResponseClosing(call) if call.endpoint is Endpoint.RESPONSES else ChatClosing(call)


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: Any = None


class _Chunk(msgspec.Struct, omit_defaults=True):
    id: str = ""
    object: Any = None
    created: Any = None
    model: Any = None
    service_tier: Any = None
    system_fingerprint: Any = None
    choices: list[_Choice] | None = None


class ChatClosing:
    """Every choice that has no finish reason gets "length"; then the usage, if it was asked for, and `[DONE]`."""

    def __init__(self, call: Call) -> None:
        self._head: dict[str, Any] = {"id": "", "object": "chat.completion.chunk", "created": 0, "model": call.model}
        self._open = dict.fromkeys(range(call.choices))
        self._tells_usage = not call.strip_usage_event

    def note(self, event: bytes) -> None:
        chunk = _read(event, _decode_chunk)
        if chunk is None:
            return
        for choice in chunk.choices or ():
            if choice.finish_reason is not None:
                self._open.pop(choice.index, None)
        if chunk.id:
            chunk.choices = None
            self._head |= msgspec.to_builtins(chunk)

    def close(self, usage: Usage) -> bytes:
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": index, "delta": {}, "logprobs": None, "finish_reason": "length"}]}
            for index in self._open
        ]
        if self._tells_usage:
            into, out = usage.input_total, usage.output_total
            told = {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out}
            chunks = [{**chunk, "usage": None} for chunk in chunks] + [{"choices": [], "usage": told}]
        return b"".join(b"data: %b\n\n" % _encode(self._head | chunk) for chunk in chunks) + b"data: [DONE]\n\n"


class _Event(msgspec.Struct):
    type: str = ""
    sequence_number: int | None = None
    output_index: int = 0
    content_index: int = 0
    item: dict[str, Any] | None = None
    part: dict[str, Any] | None = None
    delta: Any = None
    response: dict[str, Any] | None = None


class ResponseClosing:
    """What is open is done, as far as it came; then `response.incomplete`, with all that was said."""

    def __init__(self, call: Call) -> None:
        self._response: dict[str, Any] = {"id": "", "object": "response", "model": call.model}
        self._items: dict[int, dict[str, Any]] = {}
        self._parts: dict[tuple[int, int], dict[str, Any]] = {}  # of the items' content
        self._open: set[int | tuple[int, int]] = set()  # items and parts
        self._number = -1

    def note(self, event: bytes) -> None:
        data = _read(event, _decode_event)
        if data is None:
            return
        if data.sequence_number is not None:
            self._number = data.sequence_number
        if data.response is not None:
            self._response = data.response
        place = data.output_index
        part_place = (place, data.content_index)
        if data.item is not None:
            self._items[place] = data.item
            self._mark(place, data.type)
        elif data.part is not None and data.type.startswith("response.content_part."):
            self._parts[part_place] = data.part
            self._mark(part_place, data.type)
        elif data.type in _OF_PARTS and part_place in self._open:
            _append(self._parts[part_place], _OF_PARTS[data.type], data.delta)
        elif data.type in _OF_ITEMS and place in self._open:
            _append(self._items[place], _OF_ITEMS[data.type], data.delta)

    def close(self, usage: Usage) -> bytes:
        places = sorted(self._items)
        events = [event for place in places if place in self._open for event in self._done(place)]
        incomplete = {
            **self._response,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [self._items[place] for place in places],
            "usage": _told(usage),
        }
        events.append({"type": "response.incomplete", "response": incomplete})
        return b"".join(
            b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(event | {"sequence_number": number}))
            for number, event in enumerate(events, self._number + 1)
        )

    def _mark(self, place: int | tuple[int, int], kind: str) -> None:
        if kind.endswith(".added"):
            self._open.add(place)
        else:
            self._open.discard(place)

    def _done(self, place: int) -> list[dict[str, Any]]:
        """The events that close an item. The arguments of a call to a tool are not said to be done: they are not."""
        item = self._items[place]
        parts = [index for at, index in sorted(self._parts) if at == place]
        item["status"] = "incomplete"
        if parts:
            item["content"] = [self._parts[place, index] for index in parts]
        events: list[dict[str, Any]] = []
        for index in parts:
            if (place, index) in self._open:
                part = self._parts[place, index]
                here = {"item_id": item.get("id", ""), "output_index": place, "content_index": index}
                if part.get("type") == "refusal":
                    events.append({"type": "response.refusal.done", **here, "refusal": part.get("refusal", "")})
                else:
                    text = {"text": part.get("text", ""), "logprobs": part.get("logprobs", [])}
                    events.append({"type": "response.output_text.done", **here, **text})
                events.append({"type": "response.content_part.done", **here, "part": part})
        return [*events, {"type": "response.output_item.done", "output_index": place, "item": item}]


def _told(usage: Usage) -> dict[str, Any]:
    into, out = usage.input_total, usage.output_total
    return {
        "input_tokens": into,
        "input_tokens_details": {"cached_tokens": usage.input_cached},
        "output_tokens": out,
        "output_tokens_details": {"reasoning_tokens": usage.output_reasoning},
        "total_tokens": into + out,
    }


def _append(holder: dict[str, Any], name: str, delta: Any) -> None:
    if isinstance(delta, str):
        holder[name] = (holder.get(name) or "") + delta


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_event = msgspec.json.Decoder(_Event).decode


def _read(event: bytes, decode: Callable[[bytes], T]) -> T | None:
    """What a raw event holds; None if it is nothing of the kind: the meter says what that means."""
    try:
        return decode(event_data(event))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
