"""A stream that the gateway ends reads like one that upstream ended at its output limit."""

from typing import Any

import msgspec
import pytest

from gateway.core.calls.calls import Endpoint, parse
from gateway.core.calls.closings import Closing, closing_of
from gateway.core.calls.meter import Meter
from gateway.core.calls.sse import EventSplitter, event_data
from gateway.core.calls.stream_meters import stream_meter
from gateway.core.calls.usage import Usage

USAGE = Usage(input=9, output=4)


def closing(endpoint: Endpoint = Endpoint.CHAT, **fields: Any) -> Closing:
    return closing_of(parse(endpoint, msgspec.json.encode({"model": "m", "stream": True} | fields)))


def event(**data: Any) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(data)


def closed(ending: Closing, *passed: bytes) -> list[Any]:
    """The data of the events that end the stream after `passed`."""
    for each in passed:
        ending.note(each)
    data = map(event_data, EventSplitter(1 << 20).feed(ending.close(USAGE)))
    return [each.decode() if each == b"[DONE]" else msgspec.json.decode(each) for each in data]


def chunk(*choices: dict[str, Any]) -> bytes:
    return event(id="c1", object="chat.completion.chunk", created=7, model="m-1", choices=choices, usage=None)


def test_a_chat_ends_with_length_under_its_own_ids() -> None:
    (last, done) = closed(closing(), chunk({"index": 0, "delta": {"content": "a"}}))
    assert last == {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m-1",
        "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}],
    }
    assert done == "[DONE]"


def test_a_choice_that_has_ended_does_not_end_twice() -> None:
    ended = chunk({"index": 1, "delta": {}, "finish_reason": "stop"})
    *last, _ = closed(closing(n=3), chunk({"index": 0, "delta": {"content": "a"}}), ended)
    assert [each["choices"][0]["index"] for each in last] == [0, 2]


def test_usage_is_told_to_who_asked_for_it() -> None:
    (last, usage, _) = closed(closing(stream_options={"include_usage": True}), chunk())
    assert last["usage"] is None
    assert (usage["choices"], usage["usage"]) == (
        [],
        {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
    )


def test_a_response_says_what_it_had_said() -> None:
    at = {"item_id": "i0", "output_index": 0, "content_index": 0}
    item = {"id": "i0", "type": "message", "status": "in_progress", "content": []}
    *done, last = closed(
        closing(Endpoint.RESPONSES, input="hi"),
        event(type="response.created", sequence_number=0, response={"id": "r", "status": "in_progress", "output": []}),
        event(type="response.output_item.added", sequence_number=1, output_index=0, item=item),
        event(type="response.content_part.added", sequence_number=2, **at, part={"type": "output_text", "text": ""}),
        event(type="response.output_text.delta", sequence_number=3, **at, delta="Hel"),
        event(type="response.output_text.delta", sequence_number=4, **at, delta="lo"),
    )
    assert [(each["type"], each["sequence_number"]) for each in (*done, last)] == [
        ("response.output_text.done", 5),
        ("response.content_part.done", 6),
        ("response.output_item.done", 7),
        ("response.incomplete", 8),
    ]
    said = {
        "id": "i0",
        "type": "message",
        "status": "incomplete",
        "content": [{"type": "output_text", "text": "Hello"}],
    }
    assert (done[0]["text"], done[2]["item"]) == ("Hello", said)
    response = last["response"]
    assert (response["id"], response["status"], response["output"]) == ("r", "incomplete", [said])
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (response["usage"]["input_tokens"], response["usage"]["output_tokens"]) == (9, 4)


def test_the_arguments_of_a_call_that_were_cut_are_not_said_to_be_done() -> None:
    item = {"id": "i0", "type": "function_call", "name": "f", "arguments": "", "status": "in_progress"}
    *done, last = closed(
        closing(Endpoint.RESPONSES, input="hi"),
        event(type="response.output_item.added", sequence_number=1, output_index=0, item=item),
        event(type="response.function_call_arguments.delta", sequence_number=2, output_index=0, delta='{"a":'),
    )
    assert [each["type"] for each in done] == ["response.output_item.done"]
    assert last["response"]["output"] == [item | {"arguments": '{"a":', "status": "incomplete"}]


def test_an_item_that_was_done_stays_as_it_was() -> None:
    item = {"id": "i0", "type": "message", "status": "completed", "content": [{"type": "output_text", "text": "x"}]}
    (last,) = closed(
        closing(Endpoint.RESPONSES, input="hi"),
        event(type="response.output_item.added", sequence_number=1, output_index=0, item={"id": "i0"}),
        event(type="response.output_item.done", sequence_number=2, output_index=0, item=item),
    )
    assert last["response"]["output"] == [item]


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.RESPONSES])
@pytest.mark.parametrize(
    "passed",
    [
        b": keep-alive\n\n",
        b"data: [DONE]\n\n",
        b"data: {\n\n",
        b'data: {"choices":[{"index":"x"}],"item":3,"part":[],"sequence_number":"y"}\n\n',
        b'data: {"type":"response.output_text.delta","output_index":9,"content_index":9,"delta":"x"}\n\n',
        b'data: {"type":"response.content_part.added","output_index":9,"content_index":9,"part":{}}\n\n',
    ],
)
def test_whatever_passes_a_closing_still_ends_what_reads_its_end(endpoint: Endpoint, passed: bytes) -> None:
    asked: dict[str, Any] = {"input": "hi"} if endpoint is Endpoint.RESPONSES else {"messages": []}
    ending = closing(endpoint, **asked)
    ending.note(passed)
    meter: Meter = stream_meter(endpoint, strip_usage_event=False)
    meter.feed(ending.close(USAGE))
    assert meter.reading.complete
