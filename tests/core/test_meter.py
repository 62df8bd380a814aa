import itertools
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls.calls import Endpoint
from gateway.core.calls.meter import Meter, TailMeter, read_answer
from gateway.core.calls.stream_meters import stream_meter

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def chunk(text: str | None = None, usage: object = None, **more: object) -> bytes:
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}}]
    document = {"model": "gpt-4o-mini-2024-07-18", "service_tier": "default", "choices": choices, "usage": usage} | more
    return b"data: " + msgspec.json.encode(document) + b"\n\n"


CONTENT = chunk("Hel") + chunk("lo")
USAGE_EVENT = chunk(usage=USAGE)
DONE = b"data: [DONE]\n\n"


def run(meter: Meter, stream: bytes, cuts: Sequence[int] = ()) -> bytes:
    places = sorted({0, len(stream), *(at % (len(stream) + 1) for at in cuts)})
    out = b"".join(meter.feed(stream[a:b]) for a, b in itertools.pairwise(places))
    return out + meter.finish()


@given(st.lists(st.integers(0, 10_000)), st.booleans())
def test_any_split_of_a_stream_gives_the_same_usage_and_bytes(cuts: list[int], strip: bool) -> None:
    meter = stream_meter(Endpoint.CHAT, strip_usage_event=strip)
    out = run(meter, CONTENT + USAGE_EVENT + DONE, cuts)
    assert out == CONTENT + (b"" if strip else USAGE_EVENT) + DONE
    assert meter.reading.usage is not None
    assert (meter.reading.usage.prompt_tokens, meter.reading.usage.completion_tokens) == (9, 3)
    assert meter.reading.complete
    assert meter.reading.model == "gpt-4o-mini-2024-07-18"
    assert "".join(meter.reading.delivered.take_texts()) == "Hello"


FINISHED = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
SO_FAR = chunk("lo", usage=USAGE)


@pytest.mark.parametrize(
    ("stream", "is_final"),
    [
        (CONTENT + FINISHED + USAGE_EVENT, True),
        (CONTENT + USAGE_EVENT, False),  # no choice had finished
        (CONTENT + SO_FAR, False),
        (CONTENT + SO_FAR + FINISHED, False),
        (CONTENT + SO_FAR + FINISHED + DONE, True),
        (CONTENT + FINISHED + USAGE_EVENT + CONTENT, False),  # it was not the end
        (CONTENT + SO_FAR + b'data: {"error":{"message":"overloaded"}}\n\n' + DONE, False),
    ],
)
def test_usage_is_final_behind_a_finish_reason_or_at_the_end(stream: bytes, is_final: bool) -> None:
    meter = stream_meter(Endpoint.CHAT, strip_usage_event=False)
    run(meter, stream)
    assert meter.reading.usage is not None
    assert meter.reading.usage_final == is_final


@pytest.mark.parametrize(
    ("kind", "is_final"),
    [
        ("response.created", False),
        ("response.in_progress", False),
        ("response.completed", True),
        ("response.incomplete", True),
        ("response.failed", True),
    ],
)
def test_the_usage_of_a_response_is_final_in_its_last_event(kind: str, is_final: bool) -> None:
    meter = stream_meter(Endpoint.RESPONSES, strip_usage_event=False)
    event = {"type": kind, "response": {"model": "gpt-5", "usage": {"input_tokens": 5, "output_tokens": 2}}}
    run(meter, b"data: " + msgspec.json.encode(event) + b"\n\n")
    assert meter.reading.usage is not None
    assert meter.reading.usage_final == is_final


@pytest.mark.parametrize(
    ("endpoint", "event", "code"),
    [
        (Endpoint.RESPONSES, {"type": "response.failed", "response": {"error": {"code": "image_x"}}}, "image_x"),
        (Endpoint.RESPONSES, {"type": "error", "code": "server_error", "message": "x"}, "server_error"),
        (Endpoint.RESPONSES, {"error": {"type": "invalid_request_error", "code": None}}, "invalid_request_error"),
        (Endpoint.RESPONSES, {"type": "response.failed", "response": {"error": None}}, ""),
        (Endpoint.CHAT, {"error": {"type": "server_error", "code": 7}}, ""),
        (Endpoint.CHAT, {"error": {"type": "server_error"}}, "server_error"),
        (Endpoint.CHAT, {"error": "broken"}, ""),
    ],
)
def test_a_failure_within_an_answer_has_its_code(endpoint: Endpoint, event: object, code: str) -> None:
    meter = stream_meter(endpoint, strip_usage_event=False)
    run(meter, b"data: " + msgspec.json.encode(event) + b"\n\n")
    assert (meter.reading.failed, meter.reading.error) == (True, code)


def test_only_the_event_without_choices_is_taken_out() -> None:
    with_choices = chunk("x", usage=USAGE)
    meter = stream_meter(Endpoint.CHAT, strip_usage_event=True)
    assert run(meter, with_choices + DONE) == with_choices + DONE


def test_a_usage_event_that_the_cut_left_unfinished_is_taken_out_too() -> None:
    meter = stream_meter(Endpoint.CHAT, strip_usage_event=True)
    assert run(meter, CONTENT + USAGE_EVENT.rstrip()) == CONTENT
    assert meter.reading.usage is not None
    assert not meter.reading.complete


def test_what_is_no_json_passes_unread() -> None:
    noise = b": ping\n\ndata: {nope\n\ndata: [1]\n\nretry: 5\n\n"
    meter = stream_meter(Endpoint.CHAT, strip_usage_event=True)
    assert run(meter, noise) == noise


@pytest.mark.parametrize("stream", [DONE + b"\n", b"data: {nope}\n\n\n" + DONE, CONTENT + DONE + b"\n\n\n"])
def test_a_blank_line_more_than_it_needs_passes_once(stream: bytes) -> None:
    meter = stream_meter(Endpoint.CHAT, strip_usage_event=True)
    assert run(meter, stream) == stream


def test_an_error_inside_the_stream_is_noticed() -> None:
    meter = stream_meter(Endpoint.CHAT, strip_usage_event=False)
    run(meter, b'data: {"error":{"message":"overloaded"}}\n\n')
    assert meter.reading.failed


def test_tool_calls_and_refusals_are_delivered_text() -> None:
    meter = stream_meter(Endpoint.CHAT, strip_usage_event=False)
    call = {"index": 0, "function": {"name": "f", "arguments": "{}"}}
    run(meter, b"data: " + msgspec.json.encode({"choices": [{"delta": {"tool_calls": [call]}}]}) + b"\n\n")
    run(meter, b"data: " + msgspec.json.encode({"choices": [{"delta": {"refusal": "no"}}]}) + b"\n\n")
    assert "".join(meter.reading.delivered.take_texts()) == "f{}no"


@given(st.lists(st.integers(0, 10_000)))
def test_a_response_is_metered_by_its_terminal_event(cuts: list[int]) -> None:
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7, "output_tokens_details": {"reasoning_tokens": 1}}
    events: list[dict[str, object]] = [
        {"type": "response.created", "response": {"model": "gpt-5", "usage": None}},
        {"type": "response.output_text.delta", "delta": "Hi"},
        {"type": "response.completed", "response": {"model": "gpt-5", "service_tier": "flex", "usage": usage}},
    ]
    stream = b"".join(b"event: %s\ndata: %s\n\n" % (str(e["type"]).encode(), msgspec.json.encode(e)) for e in events)
    meter = stream_meter(Endpoint.RESPONSES, strip_usage_event=False)
    assert run(meter, stream, cuts) == stream
    reading = meter.reading
    assert reading.usage is not None
    assert (reading.usage.input_tokens, reading.service_tier, reading.complete) == (5, "flex", True)
    assert reading.delivered.take_texts() == ["Hi"]


def test_a_whole_answer_is_read() -> None:
    reading = read_answer(msgspec.json.encode({"model": "m", "usage": USAGE, "service_tier": "flex"}))
    assert reading.usage is not None
    assert (reading.model, reading.service_tier, reading.complete) == ("m", "flex", True)


def test_a_response_that_failed_is_a_failure_though_its_status_is_200() -> None:
    failed = read_answer(b'{"status":"failed","error":{"code":"server_error","message":"x"},"usage":null}')
    assert (failed.failed, failed.error, failed.usage) == (True, "server_error", None)
    assert not read_answer(b'{"status":"completed","error":null}').failed


def test_a_usage_that_is_none_is_told_from_one_that_is_missing() -> None:
    assert read_answer(b'{"usage":{"prompt_tokens":"many"}}').usage_unreadable
    assert not read_answer(b'{"usage":null}').usage_unreadable
    assert not read_answer(b"{}").usage_unreadable


def test_usage_is_found_in_the_tail_of_a_large_answer_and_never_in_its_text() -> None:
    text = '"usage":{"prompt_tokens":1,"completion_tokens":1}'
    inner = {"content": text, "usage": {"prompt_tokens": 77}}
    document = msgspec.json.encode({"data": "x" * 100_000, "choices": [inner], "usage": USAGE, "model": "m"})
    meter = TailMeter()
    for start in range(0, len(document), 4096):
        meter.feed(document[start : start + 4096])
    meter.finish()
    assert meter.reading.usage is not None
    assert meter.reading.usage.prompt_tokens == 9


@given(st.binary(max_size=200), st.sampled_from(list(Endpoint)))
def test_no_event_stops_a_meter(noise: bytes, endpoint: Endpoint) -> None:
    meter = stream_meter(endpoint, strip_usage_event=True)
    for data in (noise, b'{"type":"response.output_text.delta","delta":"' + noise + b'"}', b'{"usage":' + noise + b"}"):
        run(meter, b"data: " + data + b"\n\n")


def test_text_that_is_not_utf8_does_not_hide_the_usage_behind_it() -> None:
    meter = stream_meter(Endpoint.RESPONSES, strip_usage_event=False)
    usage = b'{"input_tokens":5,"output_tokens":2}'
    run(meter, b'data: {"type":"response.output_text.delta","delta":"\xff\xfe"}\n\n')
    run(meter, b'data: {"type":"response.completed","response":{"model":null,"usage":%s}}\n\n' % usage)
    assert meter.reading.usage is not None
