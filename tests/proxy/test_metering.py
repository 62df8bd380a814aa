"""Whatever form an answer takes, it reaches the caller as it is and is charged to the µcr."""

import json
import zlib
from itertools import product
from typing import Any

import brotli
import pytest
import zstandard

from gateway.sandbox.openai import SandboxOpenAISettings, SimulatedOpenAI
from tests.proxy.prices import ASKS, CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, ask_of, price_of
from tests.proxy.stack import UPSTREAM_KEY, Running, Stack
from tests.proxy.wire import Received, ScriptedUpstream, answer, ask, request

CODINGS = ["gzip", "deflate", "br", "zstd"]
STREAMED = [CHAT, COMPLETIONS, RESPONSES]
WITH_USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}


def decoded(got: Received) -> bytes:
    match got.get(b"content-encoding"):
        case b"gzip":
            return zlib.decompress(got.body, zlib.MAX_WBITS | 16)
        case b"deflate":
            return zlib.decompress(got.body)
        case b"br":
            plain: bytes = brotli.decompress(got.body)
            return plain
        case b"zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(got.body)
    return got.body


def scenario(orders: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-sandbox-scenario", orders.encode())]


def usage_events(stream: bytes) -> list[Any]:
    """The events that carry no choice."""
    data = [event.removeprefix(b"data: ") for event in stream.split(b"\n\n") if event.startswith(b"data: {")]
    return [chunk for chunk in map(json.loads, data) if chunk.get("choices") == []]


async def assert_charged_as_served(stack: Stack, openai: SimulatedOpenAI, outcome: str = "exact") -> None:
    """Every call of this test stands in the ledger with what upstream says that it served."""
    lines = await stack.lines()
    entries = openai.log.entries()
    assert [line.outcome for line in lines] == [outcome] * len(entries)
    assert [line.cost for line in lines] == [price_of(stack.card, entry) for entry in entries]
    assert all(line.cost > 0 and not line.flags for line in lines)


@pytest.mark.parametrize("endpoint", ASKS)
async def test_a_plain_answer_is_charged_what_it_used_and_says_so(
    stack: Stack, openai: SimulatedOpenAI, endpoint: str
) -> None:
    before = (await stack.balance()).available
    orders = scenario("reasoning=7" if endpoint in (CHAT, RESPONSES) else "")
    got = await ask(stack.address, request(endpoint, stack.key, ask_of(endpoint), orders))
    assert got.status == 200
    await assert_charged_as_served(stack, openai)
    (line,) = await stack.lines()
    assert got.get(b"x-gateway-request-id") == line.request_id.encode()
    assert got.get(b"x-credits-held") == _credits(line.held)
    assert got.get(b"x-credits-cost") == _credits(line.cost)
    assert got.get(b"x-credits-remaining") == _credits(before - line.cost)
    assert got.get(b"x-rate-card") == stack.card.version.encode()
    assert (await stack.balance()).available == before - line.cost


def _credits(ucr: int) -> bytes:
    whole, part = divmod(ucr, 1_000_000)
    return (f"{whole}.{part:06d}".rstrip("0").rstrip(".")).encode()


async def test_a_stream_is_charged_what_it_used_and_shows_its_usage_to_who_asked(
    stack: Stack, openai: SimulatedOpenAI
) -> None:
    for endpoint, asks_usage in product(STREAMED, [True, False]):
        fields = WITH_USAGE if asks_usage and endpoint != RESPONSES else {}
        got = await ask(stack.address, request(endpoint, stack.key, ask_of(endpoint, stream=True, **fields)))
        assert got.status == 200
        assert got.get(b"x-credits-held") is not None
        if endpoint != RESPONSES:
            assert len(usage_events(got.body)) == (1 if asks_usage else 0)
    await assert_charged_as_served(stack, openai)


async def test_only_the_injected_usage_event_is_taken_out_of_a_stream(running: Running) -> None:
    """Two upstreams of the same make, one asked directly for its usage: byte for byte the same, but for that event."""
    settings = SandboxOpenAISettings(api_key=UPSTREAM_KEY)

    def clock() -> float:
        return 1_700_000_000.0

    async with SimulatedOpenAI(settings, clock=clock) as direct, SimulatedOpenAI(settings, clock=clock) as behind:
        origin = ("127.0.0.1", int(direct.url.rpartition(":")[2]))
        async with running(behind.url) as stack:
            for endpoint, split in product([CHAT, COMPLETIONS], ["", "split=1", "split=7", "split=997"]):
                asking = ask_of(endpoint, stream=True, n=2)
                asking_usage = ask_of(endpoint, stream=True, n=2, **WITH_USAGE)
                wanted = (await ask(origin, request(endpoint, UPSTREAM_KEY, asking_usage, scenario(split)))).body
                got = await ask(stack.address, request(endpoint, stack.key, asking, scenario(split)))
                (usage,) = [event + b"\n\n" for event in wanted.split(b"\n\n") if b'"choices":[]' in event]
                assert got.body == wanted.replace(usage, b"")


async def test_other_stream_options_survive_the_injection(stack: Stack, openai: SimulatedOpenAI) -> None:
    body = ask_of(CHAT, stream=True, stream_options={"include_obfuscation": False, "include_usage": False})
    got = await ask(stack.address, request(CHAT, stack.key, body))
    assert b"obfuscation" not in got.body
    assert usage_events(got.body) == []
    await assert_charged_as_served(stack, openai)


async def test_a_compressed_answer_passes_as_it_is_and_is_metered(stack: Stack, openai: SimulatedOpenAI) -> None:
    for endpoint, coding in product([CHAT, EMBEDDINGS], CODINGS):
        fields = [(b"Accept-Encoding", coding.encode()), *scenario(f"encoding={coding}")]
        got = await ask(stack.address, request(endpoint, stack.key, ask_of(endpoint), fields))
        assert got.all(b"content-encoding") == [coding.encode()]
        assert len(got.body) == openai.log[-1].answer_bytes
        assert json.loads(decoded(got))["usage"]
        assert openai.log[-1].headers["accept-encoding"] == coding
    await assert_charged_as_served(stack, openai)


async def test_a_compressed_stream_whose_usage_was_asked_for_passes_as_it_is_and_is_metered(
    stack: Stack, openai: SimulatedOpenAI
) -> None:
    for endpoint, coding in product(STREAMED, CODINGS):
        body = ask_of(endpoint, stream=True, **({} if endpoint == RESPONSES else WITH_USAGE))
        got = await ask(stack.address, request(endpoint, stack.key, body, scenario(f"encoding={coding},split=11")))
        assert got.all(b"content-encoding") == [coding.encode()]
        assert len(got.body) == openai.log[-1].answer_bytes
        assert decoded(got)
    await assert_charged_as_served(stack, openai)


async def test_a_stream_that_is_compressed_against_our_wish_is_decoded_to_take_the_usage_event_out(
    stack: Stack, openai: SimulatedOpenAI
) -> None:
    for coding in CODINGS:
        fields = [(b"Accept-Encoding", b"gzip, br"), *scenario(f"encoding={coding}")]
        got = await ask(stack.address, request(CHAT, stack.key, ask_of(CHAT, stream=True), fields))
        assert openai.log[-1].headers["accept-encoding"] == "identity"
        assert got.get(b"content-encoding") is None
        assert got.body.endswith(b"data: [DONE]\n\n")
        assert usage_events(got.body) == []
    await assert_charged_as_served(stack, openai)


async def test_several_choices_are_all_charged(stack: Stack, openai: SimulatedOpenAI) -> None:
    for fields in ({"n": 3}, {"n": 3, "stream": True}):
        got = await ask(stack.address, request(CHAT, stack.key, ask_of(CHAT, **fields)))
        assert got.status == 200
    await assert_charged_as_served(stack, openai)
    assert [line.usage.output for line in await stack.lines()] == [72, 72]


async def test_a_prompt_found_in_the_cache_is_charged_as_such(stack: Stack, openai: SimulatedOpenAI) -> None:
    body = ask_of(CHAT, messages=[{"role": "user", "content": "word " * 3000}])
    await ask(stack.address, request(CHAT, stack.key, body, scenario("cached=1280")))
    await assert_charged_as_served(stack, openai)
    assert (await stack.line()).usage.input_cached == 1280


async def test_the_tier_that_was_served_is_charged_not_the_one_asked_for(stack: Stack, openai: SimulatedOpenAI) -> None:
    tiers = [("auto", "default"), ("flex", "default"), ("flex", "flex"), ("default", "priority"), ("auto", "scale")]
    for (asked, served), stream in product(tiers, [False, True]):
        body = ask_of(CHAT, model="gpt-5-mini", service_tier=asked, stream=stream)
        await ask(stack.address, request(CHAT, stack.key, body, scenario(f"tier={served}")))
    lines, priced = await stack.lines(), ["default", "default", "flex", "priority", "default"]
    assert [line.cost for line in lines] == [price_of(stack.card, entry) for entry in openai.log.entries()]
    assert [line.rate_key for line in lines[::2]] == [f"gpt-5-mini/{tier}" for tier in priced]


async def test_the_model_that_was_served_is_charged_not_the_one_asked_for(
    stack: Stack, openai: SimulatedOpenAI
) -> None:
    for served in ("gpt-4o-mini-2024-07-18", "gpt-4.1-nano"):
        await ask(stack.address, request(CHAT, stack.key, ask_of(CHAT), scenario(f"model={served}")))
    await assert_charged_as_served(stack, openai)


async def test_a_dearer_model_than_asked_for_is_charged_in_full_and_flagged(
    stack: Stack, openai: SimulatedOpenAI
) -> None:
    body = ask_of(CHAT, max_tokens=24)
    await ask(stack.address, request(CHAT, stack.key, body, scenario("model=gpt-4")))
    line = await stack.line()
    assert line.cost == price_of(stack.card, openai.log[0]) > line.held
    assert (line.outcome, line.flags) == ("exact", "overrun")


async def test_a_served_model_without_a_price_keeps_the_hold_and_is_flagged(
    stack: Stack, openai: SimulatedOpenAI
) -> None:
    await ask(stack.address, request(CHAT, stack.key, ask_of(CHAT), scenario("model=gpt-unheard-of")))
    line = await stack.line()
    assert (line.outcome, line.flags, line.rate_key) == ("estimated", "unpriced", "")
    assert line.cost == line.held > 0


async def test_an_answer_too_large_to_hold_is_passed_on_and_metered_from_its_end(
    running: Running, openai: SimulatedOpenAI
) -> None:
    async with running(openai.url, upstream={"answer_buffer_bytes_max": 20_000}) as stack:
        body = ask_of(EMBEDDINGS, input=[f"text {number}" for number in range(60)], encoding_format="float")
        for orders in ("", "no-content-length", "encoding=gzip"):
            got = await ask(stack.address, request(EMBEDDINGS, stack.key, body, scenario(orders)))
            assert len(json.loads(decoded(got))["data"]) == 60
            assert len(got.body) > 20_000
            assert got.get(b"x-credits-held") is not None
            assert got.get(b"x-credits-cost") is None
        await assert_charged_as_served(stack, openai)


async def test_a_large_answer_that_is_cut_is_charged_for_what_it_was_sent(
    running: Running, openai: SimulatedOpenAI
) -> None:
    async with running(openai.url, upstream={"answer_buffer_bytes_max": 20_000}) as stack:
        body = ask_of(EMBEDDINGS, input=["text"] * 60, encoding_format="float")
        with pytest.raises(EOFError):
            await ask(stack.address, request(EMBEDDINGS, stack.key, body, scenario("cut=30000")))
        line = await stack.line()
        assert (line.outcome, line.flags) == ("estimated", "cut")
        assert line.cost > 0


async def test_an_unreadable_coding_is_passed_on_and_the_hold_is_kept(
    scripted: Stack, upstream: ScriptedUpstream
) -> None:
    body = b"these are no bytes of gzip"
    for coding, stream in product([b"rot13", b"gzip"], [False, True]):
        kind = b"text/event-stream" if stream else b"application/json"
        upstream.answer = answer(body, [(b"Content-Type", kind), (b"Content-Encoding", coding)])
        fields = WITH_USAGE if stream else {}
        got = await ask(scripted.address, request(CHAT, scripted.key, ask_of(CHAT, stream=stream, **fields)))
        assert got.body == body
        assert got.all(b"content-encoding") == [coding]
    for line in await scripted.lines():
        assert (line.outcome, line.flags, line.cost) == ("estimated", "usage_absurd", line.held)
