import msgspec
import pytest

from gateway.core.calls.calls import Call, Endpoint, parse
from gateway.core.errors import FeatureNotAllowed, InvalidRequest


def chat(**fields: object) -> Call:
    return parse(Endpoint.CHAT, msgspec.json.encode({"model": "gpt-4o-mini", "messages": []} | fields))


def test_a_plain_body_is_never_rewritten() -> None:
    body = b' {"model" : "gpt-4o-mini", "messages": [ ], "x": 1.0}'
    assert parse(Endpoint.CHAT, body).body is body


def test_the_usage_event_is_asked_for_and_marked_for_removal() -> None:
    call = chat(stream=True)
    assert msgspec.json.decode(call.body)["stream_options"] == {"include_usage": True}
    assert call.strip_usage_event


def test_a_caller_who_asked_for_the_usage_event_keeps_it() -> None:
    call = chat(stream=True, stream_options={"include_usage": True})
    assert not call.strip_usage_event


@pytest.mark.parametrize("options", [{"include_obfuscation": False}, {"include_usage": False}, {}, None])
def test_other_stream_options_survive_the_injection(options: dict[str, bool] | None) -> None:
    call = chat(stream=True, stream_options=options, temperature=1.0)
    sent = msgspec.json.decode(call.body)
    assert sent["stream_options"] == (options or {}) | {"include_usage": True}
    assert b'"temperature":1.0' in call.body
    assert call.strip_usage_event


def test_an_escaped_name_does_not_hide_stream_options() -> None:
    body = b'{"model":"m","stream":true,"stream\\u005foptions":{"include_usage":false}}'
    call = parse(Endpoint.CHAT, body)
    assert msgspec.json.decode(call.body)["stream_options"] == {"include_usage": True}


def test_responses_report_usage_by_themselves() -> None:
    body = b'{"model":"gpt-5","input":"hi","stream":true}'
    assert parse(Endpoint.RESPONSES, body).body is body


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 10**18}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 10_000}, "n"),
        ({"model": 3}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"tools": "x"}, "tools"),
        ({"tools": [1]}, "tools"),
    ],
)
def test_a_field_that_the_gateway_must_know_is_refused_by_name(fields: dict[str, object], param: str | None) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**fields)
    assert refused.value.param == param
    assert refused.value.status == 400


@pytest.mark.parametrize("body", [b"", b"nope", b"[]", b'"x"', b'{"messages":[]}', b"\xff", b"[" * 100_000])
def test_what_is_not_a_call_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(Endpoint.CHAT, body)


def test_a_body_of_countless_strings_is_refused_before_they_are_looked_at() -> None:
    body = b'{"model":"m","messages":[' + b'"",' * 500_000 + b'""]}'
    with pytest.raises(InvalidRequest, match="500,000 strings"):
        parse(Endpoint.CHAT, body)


def test_what_the_gateway_need_not_know_is_the_upstreams_to_judge() -> None:
    call = chat(temperature="hot", messages="none", logit_bias=[1, 2], unknown={"a": 1})
    assert call.output_limit is None


def test_the_larger_of_two_limits_is_the_bound() -> None:
    assert chat(max_tokens=5, max_completion_tokens=7).output_limit == 7


def test_every_prompt_of_a_completion_gets_its_own_choices() -> None:
    body = msgspec.json.encode({"model": "m", "prompt": ["a", "b", "c"], "n": 2, "best_of": 4})
    assert parse(Endpoint.COMPLETIONS, body).choices == 12
    tokens = msgspec.json.encode({"model": "m", "prompt": [1, 2, 3]})
    assert parse(Endpoint.COMPLETIONS, tokens).choices == 1


@pytest.mark.parametrize("tool", ["web_search", "file_search", "code_interpreter", "image_generation", "mcp", ""])
def test_a_hosted_tool_that_usage_does_not_price_is_refused(tool: str) -> None:
    body = msgspec.json.encode({"model": "gpt-5", "input": "hi", "tools": [{"type": tool}]})
    with pytest.raises(FeatureNotAllowed) as refused:
        parse(Endpoint.RESPONSES, body)
    assert refused.value.param == "tools"


def test_function_tools_are_allowed_and_counted() -> None:
    assert chat(tools=[{"type": "function", "function": {"name": "f"}}]).extras


@pytest.mark.parametrize("fields", [{"background": True}, {"web_search_options": {}}])
def test_features_beyond_the_meter_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(FeatureNotAllowed):
        chat(**fields)


@pytest.mark.parametrize("fields", [{"previous_response_id": "resp_1"}, {"conversation": "c"}, {"prompt": {"id": "p"}}])
def test_input_that_the_body_does_not_show_is_known_to_be_unknown(fields: dict[str, object]) -> None:
    body = msgspec.json.encode({"model": "gpt-5", "input": "hi"} | fields)
    assert parse(Endpoint.RESPONSES, body).unknown_context


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gpt-5","model":"gpt-4o-mini","messages":[]}',
        b'{"model":"gpt-5","mod\\u0065l":"gpt-4o-mini","messages":[]}',
        b'{"mod\\u0065l":"gpt-4o-mini","model":"gpt-4o-mini","messages":[]}',
    ],
)
def test_a_field_named_twice_goes_upstream_as_it_was_read(body: bytes) -> None:
    call = parse(Endpoint.CHAT, body)
    assert call.model == "gpt-4o-mini"
    assert call.body.count(b"gpt-") == 1


def test_a_name_inside_another_value_is_no_repetition() -> None:
    body = b'{"model": "m", "messages": [{"role": "user", "content": "the \\"model\\" \\u00e9"}]}'
    assert parse(Endpoint.CHAT, body).body is body


def test_an_ordinary_body_of_several_parts_is_not_rewritten() -> None:
    part = b'{"type": "text", "text": "hi"}'
    body = b'{"model": "m", "messages": [{"role": "user", "content": [%s, %s]}]}' % (part, part)
    assert parse(Endpoint.CHAT, body).body is body


def test_a_hosted_tool_does_not_hide_behind_a_metered_one() -> None:
    body = b'{"model":"m","tools":[{"type":"web_search_preview","type":"function","name":"f"}],"input":"hi"}'
    with pytest.raises(InvalidRequest) as refused:
        parse(Endpoint.RESPONSES, body)
    assert refused.value.param == "tools"


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","prompt":["\xff"]}',
        b'{"model":"m","prompt":[%s]}' % (b"1" * 5000),
        b'{"model":"m","prompt":"a","stream":true,"stream_options":{"x":%s}}' % (b"1" * 5000),
        b'{"model":"m","prompt":"a","stream":true,"stream_options":{"x":"\xff"}}',
        b'{"model":"m","prompt":"a","tools":[{"type":"function","x":"\xff"}]}',
    ],
)
def test_what_no_reader_can_read_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(Endpoint.COMPLETIONS, body)
