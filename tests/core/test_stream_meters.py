"""However a stream is cut into reads, its meter tells the same, and the caller gets the same bytes."""

import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.calls.calls import Endpoint
from gateway.core.calls.meter import Meter
from gateway.core.calls.stream_meters import stream_meter

USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}


def chunk(delta: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None}]
    return {"id": "c", "object": "chat.completion.chunk", "model": "gpt-4o-mini", "choices": choices} | fields


texts = st.text(max_size=12)
chunks = st.one_of(
    texts.map(lambda text: chunk({"content": text})),
    texts.map(lambda text: chunk({"content": text}, usage=None)),
    texts.map(lambda text: chunk({"refusal": text}, service_tier="flex")),
    texts.map(lambda text: chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": text}}]})),
    st.just(chunk({"content": 'a "usage":null and "usage":{} in text'})),
    st.just(chunk(usage=USAGE)),
    st.just(chunk({"content": "x"}, usage=USAGE)),
)


@st.composite
def events(draw: st.DrawFn) -> tuple[bytes, dict[str, Any] | None]:
    """An event as it stands on the wire, and the chunk it carries."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from([b": keep-alive\n\n", b"data: [DONE]\n\n", b"data: not json\n\n", b"\n\n"])), None
    value = draw(chunks)
    spaces = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    data = json.dumps(value, ensure_ascii=draw(st.booleans()), separators=spaces).encode()
    frame = draw(
        st.sampled_from([b"data: %b\n\n", b"data:%b\n\n", b"data: %b\r\n\r\n", b"event: message\ndata: %b\n\n"])
    )
    return frame % data, value


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


def told(meter: Meter, parts: list[bytes]) -> tuple[bytes, tuple[Any, ...]]:
    out = b"".join([meter.feed(part) for part in parts]) + meter.finish()
    reading = meter.reading
    delivered = "".join(reading.delivered.take_texts())
    return out, (reading.usage, reading.usage_final, reading.model, reading.service_tier, reading.complete, delivered)


@given(st.lists(events(), max_size=12), st.lists(st.integers(0, 5000), max_size=12), st.booleans())
@settings(deadline=None, max_examples=300)
def test_a_chat_stream_is_metered_alike_however_it_is_cut(
    sent: list[tuple[bytes, dict[str, Any] | None]], places: list[int], strips: bool
) -> None:
    stream = b"".join(raw for raw, _ in sent)
    one_by_one = told(stream_meter(Endpoint.CHAT, strips), [raw for raw, _ in sent])
    byte_by_byte = told(stream_meter(Endpoint.CHAT, strips), [stream[at : at + 1] for at in range(len(stream))])
    assert told(stream_meter(Endpoint.CHAT, strips), cut(stream, places)) == one_by_one == byte_by_byte


@given(st.lists(events(), max_size=12), st.lists(st.integers(0, 5000), max_size=12))
@settings(deadline=None, max_examples=300)
def test_nothing_but_usage_events_is_taken_out(
    sent: list[tuple[bytes, dict[str, Any] | None]], places: list[int]
) -> None:
    kept = [raw for raw, value in sent if value is None or value["choices"] or value.get("usage") is None]
    stream = b"".join(raw for raw, _ in sent)
    assert told(stream_meter(Endpoint.CHAT, True), cut(stream, places))[0] == b"".join(kept)
    assert told(stream_meter(Endpoint.CHAT, False), cut(stream, places))[0] == stream


@given(st.lists(st.tuples(texts, st.booleans()), max_size=20), st.lists(st.integers(0, 5000), max_size=12))
@settings(deadline=None, max_examples=200)
def test_a_response_stream_is_metered_alike_however_it_is_cut(
    deltas: list[tuple[str, bool]], places: list[int]
) -> None:
    stream = b""
    for text, is_named in deltas:
        data = json.dumps({"type": "response.output_text.delta", "delta": text}).encode()
        stream += (b"event: response.output_text.delta\n" if is_named else b"") + b"data: %b\n\n" % data
    end = {"type": "response.completed", "response": {"model": "m", "usage": {"input_tokens": 3, "output_tokens": 4}}}
    stream += b"event: response.completed\ndata: %b\n\n" % json.dumps(end).encode()
    out, reading = told(stream_meter(Endpoint.RESPONSES, False), cut(stream, places))
    assert out == stream
    assert reading == told(stream_meter(Endpoint.RESPONSES, False), [stream])[1]
    assert reading[-1] == "".join(text for text, _ in deltas)
