"""The simulated OpenAI's request log, its refusals, its determinism, and where it listens."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sandbox.openai import (
    LogEntry,
    Outcome,
    RequestLog,
    SandboxOpenAISettings,
    SimulatedOpenAI,
    TokenCounts,
    serve,
)
from gateway.sandbox.openai.asks import read_text_ask
from gateway.sandbox.openai.plans import plan
from gateway.sandbox.openai.scenarios import Scenario, ScenarioError
from tests.patience import PATIENCE_S

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there."}]}


@pytest.fixture
async def upstream() -> AsyncIterator[SimulatedOpenAI]:
    async with SimulatedOpenAI(SandboxOpenAISettings(body_bytes_max=100_000)) as running:
        yield running


@pytest.fixture
async def session(upstream: SimulatedOpenAI) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(upstream.url) as opened:
        yield opened


async def test_every_request_is_logged_with_what_arrived(
    upstream: SimulatedOpenAI, session: aiohttp.ClientSession
) -> None:
    body = json.dumps(ASK | {"service_tier": "flex"}).encode()
    async with session.post(CHAT, data=body, headers={"Authorization": "Bearer sk-up", "X-Two": "a"}) as answer:
        usage = (await answer.json())["usage"]
        request_id = answer.headers["x-request-id"]
        length = int(answer.headers["content-length"])
    entry = upstream.log[-1]
    assert (entry.request_id, entry.endpoint, entry.method, entry.status) == (request_id, CHAT, "POST", 200)
    assert (entry.model, entry.tier, entry.stream, entry.outcome) == ("gpt-4o", "flex", False, Outcome.COMPLETE)
    assert (entry.body_bytes, entry.body_sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert (entry.usage.prompt, entry.usage.completion) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert (entry.answer_bytes, entry.usage_reported) == (length, True)
    assert entry.headers["authorization"] == "Bearer sk-up"
    assert entry.headers["x-two"] == "a"


async def test_the_log_is_read_paged_and_cleared_over_http(
    upstream: SimulatedOpenAI, session: aiohttp.ClientSession
) -> None:
    for _ in range(3):
        (await session.post(CHAT, json=ASK)).release()
    async with session.get("/sandbox/log", params={"after": "0", "limit": "1"}) as answer:
        page = await answer.json()
    assert (page["arrived"], page["ended"]) == (3, 3)
    assert [entry["sequence"] for entry in page["entries"]] == [1]
    assert page["entries"][0]["usage"]["completion"] == 24
    assert page["entries"][0]["headers"]["content-type"] == "application/json"
    assert (await session.get("/sandbox/log", params={"after": "x"})).status == 400
    assert (await session.delete("/sandbox/log")).status == 204
    assert (len(upstream.log), upstream.log.arrived, upstream.log.ended) == (0, 0, 0)


async def test_a_scenario_for_all_can_be_set_over_http(
    upstream: SimulatedOpenAI, session: aiohttp.ClientSession
) -> None:
    assert (await session.put("/sandbox/scenario", data="status=503")).status == 204
    assert (await session.post(CHAT, json=ASK)).status == 503
    assert (await session.put("/sandbox/scenario", data="nonsense")).status == 400
    assert (await session.put("/sandbox/scenario", data="")).status == 204
    assert (await session.post(CHAT, json=ASK)).status == 200
    assert len(upstream.log) == 2


def entry(sequence: int) -> LogEntry:
    return LogEntry(sequence=sequence, request_id="", method="", path="", began_at_s=0.0, raw_headers=b"")


async def test_the_log_keeps_the_latest_and_counts_all() -> None:
    log = RequestLog(entries_max=2)
    for sequence in range(5):
        log.begin(entry(sequence))
    assert [kept.sequence for kept in log.entries()] == [3, 4]
    assert log.arrived == 5


async def test_a_request_ends_once_and_one_from_before_a_clear_is_not_counted() -> None:
    log = RequestLog(entries_max=10)
    first, second = entry(0), entry(1)
    log.begin(first)
    log.clear()
    log.begin(second)
    log.end(first, Outcome.COMPLETE)
    log.end(second, Outcome.CUT)
    log.end(second, Outcome.COMPLETE)
    assert (log.ended, second.outcome) == (1, Outcome.CUT)


BAD: list[tuple[str, Any, int, str | None, str | None]] = [
    (CHAT, b"{", 400, None, None),
    (CHAT, b'{"model":"\xff"}', 400, None, None),
    (CHAT, b"[" * 90_000, 400, None, "invalid_type"),
    (CHAT, b'{"messages":' + b"[" * 90_000, 400, None, None),
    ("/v1/completions", b'{"model":"a","prompt":' + b"[" * 40_000 + b"]" * 40_000 + b"}", 400, None, None),
    (CHAT, ASK | {"stream_options": {"include_usage": 1}}, 400, "stream_options", "invalid_type"),
    (CHAT, ASK | {"max_tokens": 10**40}, 400, "max_tokens", "integer_above_max_value"),
    (CHAT, {"messages": ASK["messages"]}, 400, None, None),
    (CHAT, {"model": "gpt-4o"}, 400, "messages", "missing_required_parameter"),
    (CHAT, {"model": "gpt-4o", "messages": []}, 400, "messages", "empty_array"),
    (CHAT, {"model": "gpt-4o", "messages": "hi"}, 400, "messages", "invalid_type"),
    (CHAT, ASK | {"max_tokens": "many"}, 400, "max_tokens", "invalid_type"),
    (CHAT, ASK | {"max_tokens": -1}, 400, "max_tokens", "integer_below_min_value"),
    (CHAT, ASK | {"max_tokens": 1, "max_completion_tokens": 1}, 400, "max_tokens", "invalid_parameter_combination"),
    (CHAT, ASK | {"n": 129}, 400, "n", "integer_out_of_range"),
    (CHAT, ASK | {"n": 0}, 400, "n", "integer_out_of_range"),
    (CHAT, ASK | {"service_tier": "gold"}, 400, "service_tier", "invalid_value"),
    (CHAT, ASK | {"stream_options": {"include_usage": True}}, 400, "stream_options", "invalid_value"),
    ("/v1/completions", {"model": "a"}, 400, "prompt", "missing_required_parameter"),
    ("/v1/completions", {"model": "a", "prompt": "a", "n": 3, "best_of": 2}, 400, "best_of", "invalid_value"),
    ("/v1/responses", {"model": "a"}, 400, "input", "missing_required_parameter"),
    ("/v1/responses", {"model": "a", "input": "a", "max_output_tokens": 0}, 400, "max_output_tokens", None),
    ("/v1/embeddings", {"model": "a"}, 400, "input", "missing_required_parameter"),
    ("/v1/embeddings", {"model": "a", "input": []}, 400, "input", "invalid_value"),
    ("/v1/embeddings", {"model": "a", "input": ""}, 400, "input", "invalid_value"),
    ("/v1/embeddings", {"model": "a", "input": ["a", 1]}, 400, "input", "invalid_type"),
    ("/v1/embeddings", {"model": "a", "input": [True]}, 400, "input", "invalid_type"),
    ("/v1/embeddings", {"model": "a", "input": "a", "dimensions": 9999}, 400, "dimensions", "invalid_value"),
    ("/v1/embeddings", {"model": "a", "input": "a", "encoding_format": "x"}, 400, "encoding_format", "invalid_value"),
    ("/v1/moderations", {}, 400, "input", "missing_required_parameter"),
    ("/v1/nowhere", {}, 404, None, None),
    ("/v1/models", {}, 405, None, None),
    (CHAT, b" " * 100_001, 413, None, "request_too_large"),
]


@pytest.mark.parametrize(("path", "body", "status", "param", "code"), BAD)
async def test_a_bad_request_gets_openai_s_error(
    upstream: SimulatedOpenAI,
    session: aiohttp.ClientSession,
    path: str,
    body: Any,
    status: int,
    param: str | None,
    code: str | None,
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with session.post(path, data=data) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["param"]) == (status, param)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert code is None or error["code"] == code
    assert (upstream.log[-1].outcome, upstream.log[-1].usage) == (Outcome.ERROR, TokenCounts())


async def test_the_same_requests_in_the_same_order_get_the_same_bytes() -> None:
    async def run() -> list[tuple[bytes, dict[str, str]]]:
        answers = []
        async with (
            SimulatedOpenAI(clock=lambda: 1_800_000_000.0) as upstream,
            aiohttp.ClientSession(upstream.url) as session,
        ):
            for path, ask in (
                (CHAT, ASK | {"model": "o3", "stream": True}),
                ("/v1/responses", {"model": "gpt-5", "input": "a" * 20_000}),
                ("/v1/embeddings", {"model": "e", "input": ["a", "b"]}),
            ):
                async with session.post(path, json=ask) as answer:
                    kept = {name: value for name, value in answer.headers.items() if name != "Date"}
                    answers.append((await answer.read(), kept))
        return answers

    assert await run() == await run()


async def test_an_injected_option_or_another_key_order_changes_no_usage(
    upstream: SimulatedOpenAI, session: aiohttp.ClientSession
) -> None:
    long = [{"role": "user", "content": "hello " * 5000}]
    one = {"model": "gpt-5.6", "messages": long, "stream": True}
    two = {"stream_options": {"include_usage": True}, "stream": True, "messages": long, "model": "gpt-5.6"}
    for ask in (one, two):
        (await (await session.post(CHAT, json=ask)).read())
    assert upstream.log[0].usage == upstream.log[1].usage != TokenCounts()


async def test_many_at_once_are_each_logged_with_their_own_usage(
    upstream: SimulatedOpenAI, session: aiohttp.ClientSession
) -> None:
    async def ask(words: int) -> None:
        headers = {"x-sandbox-scenario": f"tokens={words}, rate=20000"}
        async with session.post(CHAT, json=ASK | {"stream": words % 2 == 0}, headers=headers) as answer:
            await answer.read()

    await asyncio.gather(*(ask(words) for words in range(60)))
    await upstream.log.wait_for_ended(60)
    assert {entry.outcome for entry in upstream.log.entries()} == {Outcome.COMPLETE}
    assert sorted(entry.usage.completion for entry in upstream.log.entries()) == list(range(60))
    assert len({entry.request_id for entry in upstream.log.entries()}) == 60


@given(
    model=st.sampled_from(["gpt-4o", "o3", "gpt-5.6"]),
    text=st.text(max_size=9000),
    repeated=st.integers(1, 4),
    limit=st.none() | st.integers(1, 200),
    audio=st.booleans(),
    tools=st.booleans(),
)
def test_tokens_never_pass_their_bounds(
    model: str, text: str, repeated: int, limit: int | None, audio: bool, tools: bool
) -> None:
    part = {"type": "input_audio"} if audio else {"type": "text"}
    ask: dict[str, Any] = {"model": model, "messages": [{"content": [part, text]}] * repeated}
    ask |= {} if limit is None else {"max_completion_tokens": limit}
    ask |= {"tools": [{"type": "function"}]} if tools else {}
    body = json.dumps(ask, ensure_ascii=False).encode()
    answer = plan(read_text_ask(CHAT, body), Scenario(), 24, "", 0)
    counts = answer.produced(answer.words)
    assert 0 < counts.prompt <= len(body)
    assert counts.cached + counts.cache_write + counts.prompt_audio + counts.prompt_image <= counts.prompt
    assert 0 <= counts.reasoning <= counts.completion
    assert limit is None or counts.completion <= limit


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", ""])
async def test_it_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        SimulatedOpenAI(host=host)
    with pytest.raises(ValueError, match="loopback"):
        await serve(host, 0, SandboxOpenAISettings())


async def test_a_taken_port_is_an_os_error_and_an_unknown_scenario_a_scenario_error(upstream: SimulatedOpenAI) -> None:
    port = int(upstream.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        await serve("127.0.0.1", port, SandboxOpenAISettings())
    with pytest.raises(ScenarioError):
        SimulatedOpenAI(SandboxOpenAISettings(scenario="nonsense"))


async def test_serve_announces_itself_and_gives_ids_of_its_own() -> None:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve("localhost", 0, SandboxOpenAISettings(), on_ready=ready.set_result))
    url = await asyncio.wait_for(ready, PATIENCE_S)
    async with aiohttp.ClientSession(url) as session, session.post(CHAT, json=ASK) as answer:
        request_id = answer.headers["x-request-id"]
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert len(request_id) == len("req_") + 32
    assert not request_id.startswith("req_00000000000000000")


async def test_a_client_that_leaves_while_sending_its_body_is_logged(upstream: SimulatedOpenAI) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", int(upstream.url.rpartition(":")[2]))
    writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
    await upstream.log.wait_until(lambda log: log.arrived == 1)
    writer.transport.abort()
    await upstream.log.wait_for_ended(1)
    assert (upstream.log[-1].outcome, upstream.log[-1].status) == (Outcome.CLIENT_GONE, 0)
