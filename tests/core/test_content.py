"""What a body holds beyond text, also when it tries to hide it."""

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls.calls import Call, Endpoint, parse
from gateway.core.calls.content import Content, audio_tokens, glance, read

DATA_URL = "data:image/png;base64," + "A" * 4_000
MP3 = base64.b64encode(b"ID3" + bytes(24_000)).decode()


def wav(sample_rate: int, format_tag: int = 1) -> str:
    head = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + format_tag.to_bytes(2, "little") + b"\1\0"
    return base64.b64encode(head + sample_rate.to_bytes(4, "little") + bytes(24_000)).decode()


def chat(content: Any, **more: Any) -> Call:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": content}]} | more
    return parse(Endpoint.CHAT, msgspec.json.encode(body))


def responses(items: Any) -> Call:
    return parse(Endpoint.RESPONSES, msgspec.json.encode({"model": "gpt-5", "input": items}))


def raw(body: bytes, endpoint: Endpoint = Endpoint.CHAT) -> Call:
    return parse(endpoint, body)


def test_plain_text_is_not_taken_apart() -> None:
    assert glance(chat("an image_url, an \"id\" and a file_id in 'plain' text: naïve 日本")) == Content()
    assert glance(raw(rb'{"model":"m","messages":[{"role":"user","content":"na\u00efve"}]}')) == Content()


def test_an_image_is_counted_and_its_data_is_no_text() -> None:
    content = read(chat([{"type": "image_url", "image_url": {"url": DATA_URL, "detail": "high"}}]))
    assert (content.images, content.media_bytes, content.opaque) == (1, len(DATA_URL), False)
    assert DATA_URL not in content.texts
    content = glance(responses([{"role": "user", "content": [{"type": "input_image", "image_url": DATA_URL}]}]))
    assert (content.images, content.media_bytes) == (1, len(DATA_URL))


def test_a_linked_or_uploaded_image_is_an_image() -> None:
    linked = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    uploaded = {"type": "input_image", "file_id": "file-1"}
    assert glance(chat([linked, linked])).images == 2
    assert glance(responses([{"role": "user", "content": [uploaded]}])) == Content(
        images=1, texts=("file-1", "user"), objects=2
    )


@pytest.mark.parametrize(
    "part",
    [
        rb'{"type":"\u0069mage_url","image_url":{"url":"https://e.com"}}',
        rb'{"\u0074ype":"image_url","image_url":{"url":"https://e.com"}}',
        rb'{"\u0074\u0079\u0070\u0065":"image_url","\u0069mage_url":{"url":"https://e.com"}}',
        rb'{"type":"\u0069\u006d\u0061\u0067\u0065\u005F\u0075\u0072\u006C","image_url":{"url":"https://e.com"}}',
    ],
)
def test_escapes_do_not_hide_an_image(part: bytes) -> None:
    assert glance(raw(b'{"model":"m","messages":[{"role":"user","content":[%s]}]}' % part)).images == 1


@pytest.mark.parametrize(
    "part",
    [
        rb'{"type":"image_url","type":"text","text":"x","image_url":{"url":"https://e.com"}}',
        rb'{"type":"text","text":"x","type":"image_url","image_url":{"url":"https://e.com"}}',
        rb'{"type":["image_url"],"image_url":{"url":"https://e.com"}}',
        rb'{"type":null,"image_url":{"url":"https://e.com"}}',
        rb'{"image_url":{"url":"https://e.com"}}',
        rb'{"type":"video_url","video_url":{"url":"https://e.com"}}',
        rb'{"type":"file","file":{"file_id":"file-1"}}',
        rb'{"type":"input_file","file_url":"https://e.com/a.pdf"}',
        rb'{"type":"input_file","file_data":"data:application/pdf;base64,AAAA"}',
        rb'{"type":"item_reference","id":"msg_1"}',
        rb'{"id":"msg_1"}',
        rb'{"id":"rs_1","type":"reasoning","summary":[]}',
        rb'{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":null}',
        rb'{"type":"additional_tools","tools":[{"type":"web_search"}]}',
        rb'{"type":"input_audio"}',
        rb'{"type":"input_audio","input_audio":"AAAA"}',
        rb'{"type":"input_audio","input_audio":{"data":"AAAA","format":"flac"}}',
    ],
)
def test_what_is_not_understood_is_opaque(part: bytes) -> None:
    assert glance(raw(b'{"model":"m","input":[%s]}' % part, Endpoint.RESPONSES)).opaque
    assert glance(raw(b'{"model":"m","messages":[{"role":"user","content":[%s]}]}' % part)).opaque


def test_a_repeated_list_of_messages_is_not_sent() -> None:
    hidden = b'{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://e.com"}}]}'
    call = raw(b'{"model":"m","messages":[%s],"messages":[{"role":"user","content":"hi"}]}' % hidden)
    assert b"image_url" not in call.body
    assert glance(call).images == 0


def test_an_earlier_spoken_answer_is_opaque() -> None:
    body = {"model": "gpt-audio", "messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}
    assert glance(raw(msgspec.json.encode(body))).opaque


def test_tool_calls_and_their_results_are_text() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"image_url":"x"}'}}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"image_url": {}, "id": {}}}}}
    content = glance(raw(msgspec.json.encode({"model": "m", "messages": messages, "tools": [tool]})))
    assert (content.opaque, content.images) == (False, 0)
    items = [
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "42"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"},
        {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]},
    ]
    content = glance(responses(items))
    assert not content.opaque
    assert {"42", "hi", "gAAAA", "{}"} <= set(content.texts)


def test_predicted_output_is_counted_by_its_bytes() -> None:
    call = chat("hi", prediction={"type": "content", "content": "héllo"})
    assert glance(call).prediction_bytes >= len("héllo".encode())


@pytest.mark.parametrize("data", [MP3, wav(8_000), wav(48_000)])
def test_audio_is_bounded_by_its_length(data: str) -> None:
    tokens = audio_tokens(data)
    assert tokens is not None
    assert 10 * 24_000 / 16_000 <= tokens <= len(data)
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    content = glance(chat([part]))
    assert (content.audio_tokens, content.media_bytes, content.opaque) == (tokens, len(data), False)


@pytest.mark.parametrize("data", ["", "A", "é", wav(1), wav(8_000, format_tag=49), base64.b64encode(b"OggS").decode()])
def test_audio_of_an_unknown_format_has_no_bound(data: str) -> None:
    assert audio_tokens(data) is None


@pytest.mark.parametrize(
    "messages",
    [
        b"[" + b'{"type":"text"},' * 60_000 + b"{}]",
        b'[{"role":"user","content":' + b"[" * 900 + b"]" * 900 + b"}]",
        b'[{"id":' + b"9" * 5_000 + b"}]",
    ],
)
def test_an_intricate_body_is_not_taken_apart(messages: bytes) -> None:
    body = b'{"model":"m","type":"","messages":%s}' % messages
    call = Call(Endpoint.CHAT, "m", body, False, 1, None, None, False, False, (messages,), ())
    assert glance(call).opaque or len(body) < 10_000


def test_half_a_surrogate_pair_is_only_odd_text() -> None:
    body = rb'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"\ud800"}]}]}'
    call = Call(Endpoint.CHAT, "m", body, False, 1, None, None, False, False, (), ())  # the parser may refuse it
    assert "\ud800" in read(call).texts


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8) | st.sampled_from(["text", "image_url", "id"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "id", "image_url", "input_audio", "url", "data", "x"]), inner)
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_value_makes_it_fail_or_count_media_beyond_the_body(value: Any) -> None:
    body = msgspec.json.encode({"model": "m", "messages": value, "prediction": value})
    call = Call(Endpoint.CHAT, "m", body, False, 1, None, None, False, False, (), ())
    content = read(call)
    assert 0 <= content.media_bytes <= len(body)
    assert 0 <= content.prediction_bytes <= len(body)
