"""Each scenario of the simulated OpenAI, seen from a client that reads bytes."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import brotli
import pytest
import zstandard

from gateway.sandbox.openai import Outcome, SandboxOpenAISettings, SimulatedOpenAI, TokenCounts

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there."}]}
STREAM = ASK | {"stream": True, "stream_options": {"include_usage": True}}
EVENTS = 1 + 24 + 1 + 1 + 1  # role, words, finish, usage, [DONE]


@pytest.fixture
async def upstream() -> AsyncIterator[SimulatedOpenAI]:
    async with SimulatedOpenAI() as running:
        yield running


class Answer(NamedTuple):
    head: str
    body: bytes  # as on the wire

    @property
    def status(self) -> int:
        return int(self.head.split(" ")[1])

    def header(self, name: str) -> str | None:
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name:
                return value
        return None

    @property
    def content(self) -> bytes:
        """The body without its chunks' frames; what follows a broken frame is kept as it came."""
        if self.header("transfer-encoding") != "chunked":
            return self.body
        content, rest = b"", self.body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            content, rest = content + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return content

    @property
    def whole(self) -> bool:
        """Whether the answer ended as its headers promised."""
        length = self.header("content-length")
        return self.body.endswith(b"0\r\n\r\n") if length is None else len(self.body) == int(length)


async def connect(
    upstream: SimulatedOpenAI, body: bytes, scenario: str, path: str = CHAT, method: str = "POST"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(upstream.url.rpartition(":")[2]))
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    order = f"x-sandbox-scenario: {scenario}\r\n" if scenario else ""
    writer.write(f"{head}{order}\r\n".encode() + body)
    return reader, writer


async def send(upstream: SimulatedOpenAI, ask: Any, scenario: str = "", path: str = CHAT) -> Answer:
    """Send one request and read until the connection ends, however it does."""
    reader, writer = await connect(upstream, json.dumps(ask).encode(), scenario, path)
    received = b""
    try:
        while piece := await reader.read(65536):
            received += piece
    except ConnectionResetError:
        pass
    finally:
        writer.close()
    head, _, body = received.partition(b"\r\n\r\n")
    return Answer(head.decode(), body)


def data_of(answer: Answer) -> list[bytes]:
    return [event.partition(b"data: ")[2] for event in answer.content.split(b"\n\n") if event]


async def test_a_stream_without_orders_is_whole(upstream: SimulatedOpenAI) -> None:
    answer = await send(upstream, STREAM)
    events = data_of(answer)
    assert answer.whole
    assert (len(events), events[-1]) == (EVENTS, b"[DONE]")
    assert upstream.log[-1].events == EVENTS
    assert upstream.log[-1].answer_bytes == len(answer.content)
    assert upstream.log[-1].usage_reported


@pytest.mark.parametrize("events", [0, 1, 3, EVENTS])
async def test_a_cut_stream_holds_so_many_events_and_no_end(upstream: SimulatedOpenAI, events: int) -> None:
    answer = await send(upstream, STREAM, f"cut={events}")
    assert answer.status == 200
    assert len(data_of(answer)) == events
    assert not answer.whole
    entry = upstream.log[-1]
    assert (entry.outcome, entry.events) == (Outcome.CUT, events)
    assert entry.usage.completion == min(24, max(0, events - 1))
    assert entry.usage.prompt > 0
    assert entry.usage_reported == (events == EVENTS)


async def test_a_cut_later_than_the_end_cuts_nothing(upstream: SimulatedOpenAI) -> None:
    assert (await send(upstream, STREAM, f"cut={EVENTS + 1}")).whole
    assert (await send(upstream, ASK, "cut=100000")).whole
    assert [entry.outcome for entry in upstream.log.entries()] == [Outcome.COMPLETE, Outcome.COMPLETE]


async def test_a_cut_plain_body_is_shorter_than_its_headers_say(upstream: SimulatedOpenAI) -> None:
    answer = await send(upstream, ASK, "cut=50")
    assert len(answer.body) == 50
    assert int(answer.header("content-length") or 0) > 50
    assert (upstream.log[-1].outcome, upstream.log[-1].usage.completion) == (Outcome.CUT, 24)
    assert not upstream.log[-1].usage_reported


async def test_a_cut_chunked_body_has_no_last_chunk(upstream: SimulatedOpenAI) -> None:
    answer = await send(upstream, ASK, "cut=50, no-content-length")
    assert len(answer.content) == 50
    assert not answer.whole


async def test_a_reset_is_seen_as_one(upstream: SimulatedOpenAI) -> None:
    reader, writer = await connect(upstream, json.dumps(STREAM).encode(), "reset=3")
    with pytest.raises(ConnectionResetError):
        while await reader.read(65536):
            pass
    writer.close()
    assert (upstream.log[-1].outcome, upstream.log[-1].usage.completion) == (Outcome.CUT, 2)


async def test_a_dropped_request_gets_no_byte(upstream: SimulatedOpenAI) -> None:
    assert await send(upstream, ASK, "drop") == Answer("", b"")
    assert (upstream.log[-1].outcome, upstream.log[-1].usage) == (Outcome.CUT, TokenCounts())


@pytest.mark.parametrize(("scenario", "ask"), [("stall=3", STREAM), ("stall=20", ASK)])
async def test_a_stalled_answer_stops_and_notices_who_leaves(
    upstream: SimulatedOpenAI, scenario: str, ask: dict[str, Any]
) -> None:
    _, writer = await connect(upstream, json.dumps(ask).encode(), scenario)
    sent = "events" if ask is STREAM else "answer_bytes"
    await upstream.log.wait_until(lambda log: log.arrived > 0 and getattr(log[-1], sent) == int(scenario[6:]))
    assert upstream.log.ended == 0
    writer.transport.abort()
    await upstream.log.wait_for_ended(1)
    assert upstream.log[-1].outcome is Outcome.CLIENT_GONE
    assert upstream.log[-1].usage.completion == (2 if ask is STREAM else 24)


async def test_a_request_that_is_never_answered_consumes_nothing(upstream: SimulatedOpenAI) -> None:
    _, writer = await connect(upstream, json.dumps(ASK).encode(), "stall")
    await upstream.log.wait_until(lambda log: log.arrived > 0 and log[-1].body_bytes > 0)
    writer.transport.abort()
    await upstream.log.wait_for_ended(1)
    entry = upstream.log[-1]
    assert (entry.outcome, entry.status, entry.usage) == (Outcome.CLIENT_GONE, 0, TokenCounts())


async def test_a_stop_ends_a_stalled_answer_at_once() -> None:
    async with SimulatedOpenAI(SandboxOpenAISettings(shutdown_timeout_s=600)) as upstream:
        reader, writer = await connect(upstream, json.dumps(ASK).encode(), "stall")
        await upstream.log.wait_until(lambda log: log.arrived > 0)
    assert upstream.log[-1].outcome is Outcome.STOPPED
    assert await reader.read() == b""
    writer.close()


async def test_a_client_that_leaves_a_slow_stream_is_noticed_with_what_it_got(upstream: SimulatedOpenAI) -> None:
    _, writer = await connect(upstream, json.dumps(STREAM | {"n": 2}).encode(), "rate=50, tokens=100000")
    await upstream.log.wait_until(lambda log: log.arrived > 0 and log[-1].events >= 5)
    writer.transport.abort()
    await upstream.log.wait_for_ended(1)
    entry = upstream.log[-1]
    assert entry.outcome is Outcome.CLIENT_GONE
    assert entry.usage.completion == entry.events - 2
    assert not entry.usage_reported


async def test_a_client_that_leaves_a_fast_endless_stream_is_noticed(upstream: SimulatedOpenAI) -> None:
    reader, writer = await connect(upstream, json.dumps(STREAM).encode(), "tokens=1000000")
    await reader.readexactly(100_000)
    writer.transport.abort()
    await upstream.log.wait_for_ended(1)
    assert upstream.log[-1].outcome is Outcome.CLIENT_GONE
    assert 100 < upstream.log[-1].usage.completion < 1_000_000


async def test_no_usage_is_reported_yet_logged(upstream: SimulatedOpenAI) -> None:
    assert "usage" not in json.loads((await send(upstream, ASK, "no-usage")).content)
    stream = data_of(await send(upstream, STREAM, "no-usage"))
    assert len(stream) == EVENTS - 1
    response = await send(upstream, {"model": "gpt-4o", "input": "a"}, "no-usage", "/v1/responses")
    assert "usage" not in json.loads(response.content)
    embedding = await send(upstream, {"model": "e", "input": "a"}, "no-usage", "/v1/embeddings")
    assert "usage" not in json.loads(embedding.content)
    assert [entry.usage.completion for entry in upstream.log.entries()] == [24, 24, 24, 0]
    assert not any(entry.usage_reported for entry in upstream.log.entries())


@pytest.mark.parametrize(
    ("how", "is_absurd"),
    [
        ("negative", lambda usage: usage["prompt_tokens"] < 0 and usage["completion_tokens"] < 0),
        ("huge", lambda usage: usage["completion_tokens"] == 10**15),
        ("details", lambda usage: usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] > 0),
        ("text", lambda usage: isinstance(usage["prompt_tokens"], str)),
    ],
)
async def test_absurd_usage_is_reported_and_the_real_one_logged(
    upstream: SimulatedOpenAI, how: str, is_absurd: Callable[[Any], bool]
) -> None:
    assert is_absurd(json.loads((await send(upstream, ASK, f"absurd-usage={how}")).content)["usage"])
    assert upstream.log[-1].usage.completion == 24


DECODERS: dict[str, Any] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@pytest.mark.parametrize("encoding", DECODERS)
@pytest.mark.parametrize("ask", [ASK, STREAM], ids=["plain", "stream"])
async def test_an_encoded_answer_decodes_to_the_same(
    upstream: SimulatedOpenAI, encoding: str, ask: dict[str, Any]
) -> None:
    plain = await send(upstream, ask)
    encoded = await send(upstream, ask, f"encoding={encoding}")
    assert encoded.header("content-encoding") == encoding
    decoded = DECODERS[encoding](encoded.content)
    assert len(decoded) == len(plain.content)
    assert decoded[-200:].replace(b"1", b"0") == plain.content[-200:].replace(b"1", b"0")  # the ids count on


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
async def test_an_encoded_stream_is_flushed_at_each_event(upstream: SimulatedOpenAI, encoding: str) -> None:
    answer = await send(upstream, STREAM, f"encoding={encoding}, cut=4")
    decoders: dict[str, Any] = {
        "gzip": lambda: zlib.decompressobj(31),
        "deflate": zlib.decompressobj,
        "br": brotli.Decompressor,
        "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
    }
    decoder = decoders[encoding]()
    decode = decoder.process if encoding == "br" else decoder.decompress
    assert decode(answer.content).count(b"\n\n") == 4


async def test_a_plain_answer_can_hide_its_length(upstream: SimulatedOpenAI) -> None:
    answer = await send(upstream, ASK, "no-content-length")
    assert answer.header("content-length") is None
    assert answer.whole
    assert json.loads(answer.content)["usage"]


async def test_a_malformed_answer_is_whole_but_no_json(upstream: SimulatedOpenAI) -> None:
    plain = await send(upstream, ASK, "malformed")
    assert plain.whole
    with pytest.raises(json.JSONDecodeError):
        json.loads(plain.content)
    stream = data_of(await send(upstream, STREAM, "malformed"))
    with pytest.raises(json.JSONDecodeError):
        json.loads(stream[1])
    assert json.loads(stream[-2])["usage"]


async def test_a_split_stream_comes_in_pieces_of_that_size(upstream: SimulatedOpenAI) -> None:
    answer = await send(upstream, STREAM, "split=7")
    assert len(data_of(answer)) == EVENTS
    frames = answer.body.count(b"\r\n7\r\n")
    assert frames > len(answer.content) // 7 - 2 * EVENTS
    assert json.loads((await send(upstream, ASK, "split=3")).content)["usage"]


async def test_tier_and_model_can_differ_from_what_was_asked(upstream: SimulatedOpenAI) -> None:
    scenario = "tier=priority, model=gpt-4o-2024-08-06"
    answer = json.loads((await send(upstream, ASK | {"service_tier": "flex"}, scenario)).content)
    assert (answer["service_tier"], answer["model"]) == ("priority", "gpt-4o-2024-08-06")
    entry = upstream.log[-1]
    assert (entry.tier, entry.model, entry.served_model) == ("priority", "gpt-4o", "gpt-4o-2024-08-06")


async def test_lengths_can_be_ordered_and_limits_still_hold(upstream: SimulatedOpenAI) -> None:
    scenario = "tokens=300, reasoning=50, cached=2"
    usage = json.loads((await send(upstream, ASK, scenario)).content)["usage"]
    assert usage["completion_tokens"] == 350
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 50
    assert usage["prompt_tokens_details"]["cached_tokens"] == 2
    limited = json.loads((await send(upstream, ASK | {"max_tokens": 60}, scenario)).content)
    assert limited["usage"]["completion_tokens"] == 60
    assert len(limited["choices"][0]["message"]["content"].split()) == 10


async def test_waits_are_kept(upstream: SimulatedOpenAI) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await send(upstream, STREAM, "slow-headers=20, ttft=20, rate=1000")
    streamed_s = loop.time() - began_s
    await send(upstream, ASK, "slow-headers=20, ttft=20, rate=1000")
    assert streamed_s >= 0.064
    assert loop.time() - began_s - streamed_s >= 0.064


async def test_an_ordered_error_says_when_to_come_back(upstream: SimulatedOpenAI) -> None:
    answer = await send(upstream, ASK, "status=429, retry-after=7")
    assert (answer.status, answer.header("retry-after")) == (429, "7")
    assert json.loads(answer.content)["error"]["code"] == "rate_limit_exceeded"
    assert (upstream.log[-1].outcome, upstream.log[-1].status) == (Outcome.ERROR, 429)
    assert upstream.log[-1].usage == TokenCounts()


async def test_a_scenario_for_all_holds_until_it_is_lifted_and_a_header_goes_on_top(upstream: SimulatedOpenAI) -> None:
    upstream.set_scenario("status=503, retry-after=9")
    assert (await send(upstream, ASK)).status == 503
    assert (await send(upstream, ASK, "status=500")).status == 500
    upstream.set_scenario("")
    assert (await send(upstream, ASK)).status == 200


@pytest.mark.parametrize(
    "scenario",
    [
        "stal=3",
        "status=200",
        "status=x",
        "tokens",
        "tokens=-1",
        "encoding=lzma",
        "model",
        "drop=1",
        "split=0",
        "rate=nan",
    ],
)
async def test_an_order_that_is_not_known_is_refused(upstream: SimulatedOpenAI, scenario: str) -> None:
    answer = await send(upstream, ASK, scenario)
    assert answer.status == 400
    assert json.loads(answer.content)["error"]["code"] == "invalid_scenario"


async def test_a_failing_stream_ends_with_an_error_event(upstream: SimulatedOpenAI) -> None:
    events = data_of(await send(upstream, STREAM, "fail=4"))
    assert len(events) == 5
    assert json.loads(events[-1])["error"]["type"] == "server_error"
    assert (upstream.log[-1].outcome, upstream.log[-1].usage.completion) == (Outcome.FAILED, 3)
