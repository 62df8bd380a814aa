"""A small balance runs a long answer slice by slice: nobody overdraws, and what ends early ends as at its limit."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import openai as sdk
import pytest

from gateway.core.pricing.rates import Rate, price
from gateway.sandbox.openai import SimulatedOpenAI
from tests.patience import PATIENCE_S
from tests.proxy.prices import CHAT
from tests.proxy.stack import Account, Line, Running, Stack
from tests.proxy.test_caps import body, cap
from tests.proxy.wire import Received, ScriptedUpstream, ask, events, request

MODEL = "gpt-4o-mini"
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
SLICES = {"output_tokens": 200, "output_tokens_min": 50, "ahead_tokens": 60, "wait_ms": 200}


@pytest.fixture
async def stack(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Stack]:
    async with running(openai.url, slices=SLICES) as stack:
        yield stack


def rate_of(stack: Stack) -> Rate:
    row = stack.card.find(MODEL)
    assert row is not None
    return row.brackets("default")[0].rate


def cost_of(stack: Stack, output_tokens: int) -> int:
    return rate_of(stack).output * output_tokens // 1_000_000


async def account_with(stack: Stack, output_tokens: int, policy: str = "slice") -> Account:
    """Credit for so many tokens of output, and the policy."""
    account = await stack.new_account(f"small {output_tokens}", ucr=cost_of(stack, output_tokens))
    await cap(stack, account.id, on_unaffordable=policy)
    return account


def scenario(tokens: int) -> dict[str, str]:
    return {"x-sandbox-scenario": f"tokens={tokens}"}


async def chat(stack: Stack, account: Account, tokens: int, **fields: Any) -> list[Any]:
    """The chunks of an answer that wants so many tokens, and may have 16,000."""
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_tokens": 16_000, "stream": True} | fields
    async with stack.client(account.key) as client:
        stream: Any = await client.chat.completions.create(**asked, extra_headers=scenario(tokens))
        return [chunk async for chunk in stream]


def outcome_of(chunks: list[Any]) -> str:
    reason: str = chunks[-1].choices[0].finish_reason
    return reason


def assert_exact(stack: Stack, line: Line) -> None:
    """It is charged what its usage costs, which its hold covered."""
    assert line.charged == price(line.usage, rate_of(stack), stack.card.rounding).cost <= line.held


async def test_an_answer_that_credit_does_not_reach_to_the_end_of_ends_as_at_its_limit(stack: Stack) -> None:
    account = await account_with(stack, 600)
    chunks = await chat(stack, account, 2000)
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "length"]
    assert {(chunk.id, chunk.model, chunk.created) for chunk in chunks} == {
        (chunks[0].id, chunks[0].model, chunks[0].created)
    }
    line = await stack.line()
    assert (line.outcome, line.flags) == ("estimated", "sliced")
    assert 500 < line.usage.output < 600
    assert (await stack.balance(account)).available >= 0
    assert_exact(stack, line)


async def test_an_answer_within_reach_comes_whole_and_is_charged_exactly(stack: Stack) -> None:
    account = await account_with(stack, 1000)
    chunks = await chat(stack, account, 700)
    assert chunks[-1].choices[0].finish_reason == "stop"
    line = await stack.line()
    assert (line.outcome, line.flags, line.usage.output) == ("exact", "", 700)
    assert_exact(stack, line)


async def test_what_was_asked_of_usage_is_told_and_is_what_is_charged(stack: Stack) -> None:
    account = await account_with(stack, 300)
    chunks = await chat(stack, account, 2000, stream_options={"include_usage": True})
    assert [bool(chunk.choices) for chunk in chunks][-2:] == [True, False]
    usage = (await stack.line()).usage
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (usage.input, usage.output)


async def test_each_choice_that_is_still_open_ends_at_its_limit(stack: Stack) -> None:
    account = await account_with(stack, 400)
    chunks = await chat(stack, account, 1000, n=3, max_tokens=4000)
    ends = [choice for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert sorted((each.index, each.finish_reason) for each in ends) == [(n, "length") for n in range(3)]
    assert_exact(stack, await stack.line())


async def test_a_response_ends_as_incomplete_with_all_that_was_said(stack: Stack) -> None:
    account = await account_with(stack, 600)
    asked: dict[str, Any] = {"model": MODEL, "input": "Say hello.", "max_output_tokens": 16_000}
    async with (
        stack.client(account.key) as client,
        client.responses.stream(**asked, extra_headers=scenario(2000)) as stream,
    ):
        seen: list[Any] = [event async for event in stream]
    response = seen[-1].response
    assert (seen[-1].type, response.status) == ("response.incomplete", "incomplete")
    assert response.incomplete_details.reason == "max_output_tokens"
    text = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
    assert response.output_text == text != ""
    assert response.output[0].status == "incomplete"
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    line = await stack.line()
    assert (line.flags, response.usage.output_tokens) == ("sliced", line.usage.output)
    assert_exact(stack, line)


async def test_the_first_slice_is_said_before_the_answer(stack: Stack) -> None:
    account = await account_with(stack, 600)
    got = await ask(stack.address, request(CHAT, account.key, body(stream=True, max_tokens=16_000)))
    assert (got.get(b"x-gateway-output-slice"), got.get(b"x-gateway-output-limit")) == (b"200; by=balance", None)


async def test_a_cap_on_output_is_said_beside_the_slice(stack: Stack) -> None:
    account = await account_with(stack, 600)
    await cap(stack, account.id, output_tokens=4000)
    got = await ask(stack.address, request(CHAT, account.key, body(stream=True, max_tokens=16_000)))
    assert got.get(b"x-gateway-output-slice") == b"200; by=balance"
    assert got.get(b"x-gateway-output-limit") == b"4000; by=cap"


async def test_a_credit_of_less_than_a_slice_is_one(stack: Stack) -> None:
    account = await account_with(stack, 120)
    chunks = await chat(stack, account, 2000)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert_exact(stack, await stack.line())


@pytest.mark.parametrize("fields", [{"stream": False}, {"model": "gpt-5-mini", "max_tokens": None}])
async def test_what_cannot_be_followed_is_clamped(stack: Stack, fields: dict[str, Any]) -> None:
    account = await account_with(stack, 600)
    got = await ask(
        stack.address, request(CHAT, account.key, body(**({"stream": True, "max_tokens": 16_000} | fields)))
    )
    assert (got.status, got.get(b"x-gateway-output-slice")) == (200, None)
    assert (got.get(b"x-gateway-output-limit") or b"").endswith(b"; by=balance")


async def test_what_is_affordable_whole_is_held_whole(stack: Stack) -> None:
    await cap(stack, on_unaffordable="slice")
    chunks = await chat(stack, stack.account, 500)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert (await stack.line()).held > cost_of(stack, 15_000)


async def test_a_days_cap_ends_a_sliced_answer_too(stack: Stack) -> None:
    day = cost_of(stack, 600)
    await cap(stack, on_unaffordable="slice", day=day)
    chunks = await chat(stack, stack.account, 2000)
    assert chunks[-1].choices[0].finish_reason == "length"
    line = await stack.line()
    assert 500 < line.usage.output < 600
    assert line.charged <= day


async def test_a_cap_on_one_request_ends_a_sliced_answer_too(stack: Stack) -> None:
    most = cost_of(stack, 600)
    await cap(stack, on_unaffordable="slice", request=most)
    assert outcome_of(await chat(stack, stack.account, 2000)) == "length"
    line = await stack.line()
    assert 500 < line.usage.output < 600
    assert line.held <= most


def said(text: str) -> bytes:
    chunk = {"id": "c", "model": MODEL, "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


async def test_no_event_passes_that_is_not_paid_for_and_upstream_is_closed(
    running: Running, upstream: ScriptedUpstream
) -> None:
    closed = asyncio.Event()

    async def serve(_: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, end = events(said("hello"), said("word " * 5000)).rsplit(b"0\r\n\r\n", 1)
        writer.write(head + end)  # and no last chunk
        assert await reader.read() == b""
        closed.set()

    upstream.serve = serve
    async with running(upstream.url, slices=SLICES) as stack:
        account = await account_with(stack, 600)
        got = await ask(stack.address, request(CHAT, account.key, body(stream=True, max_tokens=16_000)))
        await asyncio.wait_for(closed.wait(), PATIENCE_S)
        assert got.body.startswith(said("hello"))
        assert b"word" not in got.body
        assert b'"finish_reason":"length"' in got.body
        line = await stack.line()
        assert (line.flags, line.usage.output) == ("sliced", 1)
        assert_exact(stack, line)


async def test_an_answer_that_breaks_off_is_no_end_at_a_limit(running: Running, upstream: ScriptedUpstream) -> None:
    upstream.answer = events(said("hello"))[:-5]

    async def serve(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upstream.answer)
        writer.close()

    upstream.serve = serve
    async with running(upstream.url, slices=SLICES) as stack:
        account = await account_with(stack, 600)
        with pytest.raises(asyncio.IncompleteReadError):
            await ask(stack.address, request(CHAT, account.key, body(stream=True, max_tokens=16_000)))
        line = await stack.line()
        assert (line.outcome, line.flags, line.usage.output) == ("estimated", "cut", 1)


async def test_20_sliced_answers_at_once_never_overdraw(stack: Stack) -> None:
    account = await account_with(stack, 5_000)

    async def one() -> str:
        try:
            return outcome_of(await chat(stack, account, 1000))
        except sdk.APIStatusError as error:
            return str(error.status_code)

    reasons = Counter(await asyncio.gather(*(one() for _ in range(20))))
    assert reasons["length"] > 0
    assert set(reasons) <= {"length", "stop", "402"}
    lines = await stack.lines()
    assert len(lines) == 20 - reasons["402"]
    balance = await stack.balance(account)
    assert balance.available >= 0
    assert [line.flags for line in lines if line.flags not in ("", "sliced")] == []
    for line in lines:
        assert_exact(stack, line)
