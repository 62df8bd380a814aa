"""Sliced holds over two processes, with the official SDK: a small balance runs long answers, and never below zero."""

import asyncio
from collections import Counter
from typing import Any

import openai as sdk
from openai import AsyncOpenAI

from tests.sdk import without_tls
from tests.up import Stack

MODEL = "gpt-4o-mini"
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]
SLICE_TOKENS = 2000  # of the shipped configuration
OUTPUT_UCR = 2400  # of one token, on the shipped card
TIMEOUT_S = 60.0


async def answer(client: AsyncOpenAI, tokens: int) -> list[Any]:
    """The chunks of an answer that wants so many tokens, and may have 16,000."""
    stream: Any = await client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=16_000,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers={"x-sandbox-scenario": f"tokens={tokens}"},
    )
    return [chunk async for chunk in stream]


async def end_of(client: AsyncOpenAI, tokens: int) -> str:
    """Its finish reason, or the status that refused it."""
    try:
        chunks = await answer(client, tokens)
    except sdk.APIStatusError as error:
        return str(error.status_code)
    return str(chunks[-2].choices[0].finish_reason)


async def sliced_caller(pair: Stack, name: str, credits: int) -> tuple[str, str]:
    """An account whose policy both processes know: on so many connections in a row, neither refuses its long call."""
    account, key = pair.new_caller(name, credits=credits)
    await asyncio.to_thread(
        pair.tollgate, "caps", "set", account, "--on-unaffordable", "slice", "--output-tokens", "unlimited"
    )
    in_a_row = 0
    async with asyncio.timeout(TIMEOUT_S):
        while in_a_row < 20:
            async with client_of(pair, key) as client:
                in_a_row = in_a_row + 1 if await end_of(client, 1) == "stop" else 0
    return account, key


def client_of(pair: Stack, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=pair.base_url, api_key=key, max_retries=0, timeout=TIMEOUT_S, http_client=without_tls())


async def test_credit_for_three_slices_streams_so_much_of_an_answer_of_ten(pair: Stack) -> None:
    account, key = await sliced_caller(pair, "three slices", 3 * SLICE_TOKENS * OUTPUT_UCR // 1_000_000 + 1)
    before = pair.settled_account(account)["balance_ucr"]
    async with client_of(pair, key) as client:
        chunks = await answer(client, 10 * SLICE_TOKENS)
    assert chunks[-2].choices[0].finish_reason == "length"
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    told = chunks[-1].usage
    assert len(said) > 2 * SLICE_TOKENS
    assert 2.5 * SLICE_TOKENS < told.completion_tokens < 3.2 * SLICE_TOKENS
    after = pair.settled_account(account)["balance_ucr"]
    assert after >= 0
    assert before - after == told.completion_tokens * OUTPUT_UCR + told.prompt_tokens * OUTPUT_UCR // 4
    shown = pair.tollgate("caps", "show", account)
    assert shown[0]["caps"]["on_unaffordable"] == "slice"


async def test_50_long_answers_at_once_on_one_account_never_go_below_zero(pair: Stack) -> None:
    account, key = await sliced_caller(pair, "fifty", 60)
    async with client_of(pair, key) as client:
        ends = Counter(await asyncio.gather(*(end_of(client, 3000) for _ in range(50))))
    assert set(ends) <= {"length", "stop", "402"}
    assert ends["stop"] <= 60_000_000 // (3000 * OUTPUT_UCR)  # of whole answers, as many as the credit pays
    assert pair.settled_account(account)["balance_ucr"] >= 0


async def test_each_of_them_is_charged_as_the_ledger_recomputes_it(pair: Stack) -> None:
    assert (await asyncio.to_thread(pair.tollgate, "audit"))["clean"]
