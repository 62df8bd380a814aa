"""What goes in comes out: methods, targets, bodies and end-to-end headers pass unchanged, both ways."""

import asyncio
from itertools import product

import pytest

from gateway.core.access.keys import SHOWN_LENGTH
from tests.proxy.http1.wire import upstream as socket_upstream
from tests.proxy.stack import UPSTREAM_KEY, Running, Stack
from tests.proxy.wire import (
    Client,
    Fields,
    Received,
    ScriptedUpstream,
    answer,
    ask,
    events,
    read_head,
    read_message,
    request,
)

CHAT = "/v1/chat/completions"
BODY = b'{"model":"gpt-4o-mini",  "messages":[{"role":"user","content":"h\\u00e9 \xc3\xa9"}],"max_tokens":5 ,"x":1e400}'
ANSWER = (
    b'{"id":"a", "model":"gpt-4o-mini","choices":[],'
    b' "usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}\n'
)
OWN_HEADERS = frozenset(
    {
        b"x-gateway-request-id",
        b"x-credits-held",
        b"x-credits-cost",
        b"x-credits-remaining",
        b"x-rate-card",
        b"content-length",
        b"transfer-encoding",
        b"connection",
    }
)


def foreign(received: Received) -> Fields:
    """The fields that are not the gateway's own."""
    return [field for field in received.fields if field[0].lower() not in OWN_HEADERS]


async def test_a_request_goes_upstream_as_it_came(scripted: Stack, upstream: ScriptedUpstream) -> None:
    upstream.answer = answer(ANSWER)
    for query in ("", "?", "?a=1&a=2&b=%2F%zz&&=", '?x=%00;y[]={}|\\^`"<>', "?a=b?c=d/../e//"):
        got = await ask(scripted.address, request(CHAT + query, scripted.key, BODY))
        assert got.status == 200
        assert upstream.requests[-1].line == b"POST %b HTTP/1.1" % (CHAT + query).encode()
        assert upstream.requests[-1].body == BODY


async def test_end_to_end_headers_keep_order_case_and_duplicates_on_the_way_up(
    scripted: Stack, upstream: ScriptedUpstream
) -> None:
    upstream.answer = answer(ANSWER)
    kept = [
        (b"X-B", b"1"),
        (b"x-a", b"2"),
        (b"X-B", b"3"),
        (b"OpenAI-Organization", b"org-1"),
        (b"Accept-Encoding", b"gzip, br;q=0.5"),
        (b"Cookie", b"a=b"),
        (b"Cookie", b"c=d"),
        (b"User-Agent", b"\xe9t\xe9/1"),
        (b"X-Empty", b""),
        (b"Content-Type", b"application/json; charset=utf-8"),
        (b"Idempotency-Key", b"once"),
    ]
    hop_by_hop = [
        (b"Connection", b"keep-alive, X-Drop"),
        (b"X-Drop", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"TE", b"trailers"),
        (b"Proxy-Authorization", b"Basic eDp5"),
        (b"Proxy-Connection", b"close"),
        (b"Upgrade", b"h2c"),
    ]
    got = await ask(scripted.address, request(CHAT, scripted.key, BODY, [*kept[:4], *hop_by_hop, *kept[4:]]))
    assert got.status == 200
    (sent,) = upstream.requests
    written_here = (b"host", b"authorization", b"content-length")
    assert [field for field in sent.fields if field[0].lower() not in written_here] == kept
    assert sent.all(b"host") == [upstream.url.removeprefix("http://").encode()]


async def test_end_to_end_headers_keep_order_case_and_duplicates_on_the_way_back(
    scripted: Stack, upstream: ScriptedUpstream
) -> None:
    kept = [
        (b"Set-Cookie", b"a=1; Path=/"),
        (b"X-Request-ID", b"req_1"),
        (b"set-cookie", b"b=2"),
        (b"Content-Type", b"application/json"),
        (b"x-ratelimit-remaining-tokens", b"199"),
        (b"X-Latin", b"\xe9"),
        (b"Date", b"Thu, 01 Jan 1970 00:00:00 GMT"),
    ]
    dropped = [(b"Connection", b"keep-alive, x-hop"), (b"X-Hop", b"1"), (b"Keep-Alive", b"timeout=5")]
    upstream.answer = answer(ANSWER, [*kept[:3], *dropped, *kept[3:]], b"200 Fine")
    got = await ask(scripted.address, request(CHAT, scripted.key, BODY))
    assert got.line == b"HTTP/1.1 200 Fine"
    assert foreign(got) == kept
    assert got.body == ANSWER


async def test_an_error_of_upstream_comes_back_as_it_was(scripted: Stack, upstream: ScriptedUpstream) -> None:
    fields = [(b"Content-Type", b"application/json"), (b"Retry-After", b"7"), (b"x-should-retry", b"true")]
    upstream.answer = answer(b'{"error": {"message":"slow down"}}', fields, b"429 Too Many Requests")
    got = await ask(scripted.address, request(CHAT, scripted.key, BODY))
    assert got.line == b"HTTP/1.1 429 Too Many Requests"
    assert foreign(got) == fields
    assert got.body == b'{"error": {"message":"slow down"}}'
    assert (await scripted.line()).outcome == "void"


async def test_interim_answers_come_back_before_the_answer_they_announce(
    scripted: Stack, upstream: ScriptedUpstream
) -> None:
    interim = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nlink: </b>\r\n\r\n"
    upstream.answer = interim + answer(ANSWER)
    calls = (request(CHAT, scripted.key, BODY), request("/v1/models", scripted.key, method="GET"))
    for call in calls:
        async with Client.connect(scripted.address) as client:
            client.writer.write(call)
            assert await client.reader.readexactly(len(interim)) == interim
            got = await read_message(client.reader)
            assert (got.status, got.body) == (200, ANSWER)
    old = await ask(scripted.address, calls[0].replace(b" HTTP/1.1", b" HTTP/1.0"))
    assert (old.status, old.body) == (200, ANSWER)


async def test_a_stream_passes_byte_for_byte(scripted: Stack, upstream: ScriptedUpstream) -> None:
    stream = (
        b': comment\r\n\r\nid: 7\nretry: 10\ndata: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n'
        b'data:not json\n\ndata: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'
        b"data: [DONE]\n\ntrailing without its end"
    )
    upstream.answer = events(*(stream[at : at + 7] for at in range(0, len(stream), 7)))
    body = BODY.replace(b'"x":', b'"stream":true,"stream_options":{"include_usage":true},"x":')
    got = await ask(scripted.address, request(CHAT, scripted.key, body))
    assert got.body == stream
    assert upstream.requests[0].body == body
    assert (await scripted.line()).outcome == "exact"


async def test_the_callers_key_never_goes_upstream(scripted: Stack, upstream: ScriptedUpstream) -> None:
    upstream.answer = answer(ANSWER)
    await ask(scripted.address, request(CHAT, scripted.key, BODY))
    await ask(scripted.address, request("/v1/models", scripted.key, method="GET"))
    for sent in upstream.requests:
        assert sent.all(b"authorization") == [b"Bearer " + UPSTREAM_KEY.encode()]
        assert not any(scripted.key[:SHOWN_LENGTH].encode() in value for _, value in sent.fields)


ECHO = b'{"error":{"message":"Incorrect API key provided: %b"}}' % UPSTREAM_KEY.encode()


async def test_the_upstreams_key_never_comes_back_even_echoed(scripted: Stack, upstream: ScriptedUpstream) -> None:
    fields = [(b"Content-Type", b"application/json"), (b"X-Echo", b"key=" + UPSTREAM_KEY.encode())]
    for status, target in product([b"200 OK", b"403 Forbidden", b"500 Oh"], [CHAT, "/v1/moderations"]):
        upstream.answer = answer(ECHO, fields, status)
        got = await ask(scripted.address, request(target, scripted.key, BODY))
        assert got.status == int(status[:3])
        assert got.all(b"x-echo") == [b"key=" + b"*" * len(UPSTREAM_KEY)]
        assert got.body == ECHO.replace(UPSTREAM_KEY.encode(), b"*" * len(UPSTREAM_KEY))


async def test_a_key_split_over_the_pieces_of_a_stream_never_comes_back(
    scripted: Stack, upstream: ScriptedUpstream
) -> None:
    stream = (
        b'data: {"choices":[{"delta":{"content":"it is %b, ssk-up"}}]}\n\ndata: [DONE]\n\nsk-up' % UPSTREAM_KEY.encode()
    )
    upstream.answer = events(*(stream[at : at + 5] for at in range(0, len(stream), 5)))
    body = BODY.replace(b'"x":', b'"stream":true,"stream_options":{"include_usage":true},"x":')
    got = await ask(scripted.address, request(CHAT, scripted.key, body))
    assert got.body == stream.replace(UPSTREAM_KEY.encode(), b"*" * len(UPSTREAM_KEY))


@pytest.mark.parametrize("target", [CHAT, "/v1/models"])
async def test_a_401_of_upstream_is_about_the_gateways_key_and_becomes_a_502(
    scripted: Stack, upstream: ScriptedUpstream, target: str
) -> None:
    upstream.answer = answer(ECHO, None, b"401 Unauthorized")
    asked = request(target, scripted.key, BODY) if target == CHAT else request(target, scripted.key, method="GET")
    got = await ask(scripted.address, asked)
    assert got.status == 502
    assert b'"upstream_rejected"' in got.body
    assert UPSTREAM_KEY.encode() not in got.body
    assert got.get(b"x-should-retry") == b"false"


async def test_calls_on_one_connection_are_answered_in_order(scripted: Stack, upstream: ScriptedUpstream) -> None:
    upstream.answer = answer(ANSWER)
    async with Client.connect(scripted.address) as client:
        for _ in range(3):
            assert (await client.ask(request(CHAT, scripted.key, BODY))).body == ANSWER
        client.writer.write(request(CHAT, scripted.key, BODY) + request("/v1/models", scripted.key, method="GET"))
        upstream.answer = answer(ANSWER)
        first = await client.begin(b"")
        assert first.get(b"x-credits-held") is not None
    await scripted.quiet()


async def test_a_body_that_breaks_behind_the_beginning_of_its_answer_cuts_the_answer(running: Running) -> None:
    async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
        await reader.read()

    head = b"POST /v1/moderations HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer "
    async with (
        socket_upstream(answer_early) as origin,
        running(origin) as stack,
        Client.connect(stack.address) as client,
    ):
        client.writer.write(head + stack.key.encode() + b"\r\n\r\n2\r\n{}\r\n")
        assert (await client.read_until(b"{}\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        client.writer.write(b"no chunk")
        assert await client.reader.read() == b""


async def test_a_named_model_and_a_moderation_are_free(scripted: Stack, upstream: ScriptedUpstream) -> None:
    upstream.answer = answer(b'{"id":"gpt-4o"}')
    got = await ask(scripted.address, request("/v1/models/gpt-4o?x=1", scripted.key, method="GET"))
    assert got.body == b'{"id":"gpt-4o"}'
    assert upstream.requests[-1].target == b"/v1/models/gpt-4o?x=1"
    got = await ask(scripted.address, request("/v1/moderations", scripted.key, b"anything at all"))
    assert upstream.requests[-1].body == b"anything at all"
    assert got.get(b"x-credits-held") is None
    assert await scripted.lines() == []
