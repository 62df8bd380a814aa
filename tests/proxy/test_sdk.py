"""The official SDK against the data plane, many calls of all kinds at once: the sum of upstream's log is charged."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import openai as sdk
import pytest
from openai import AsyncOpenAI

from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.prices import price_of
from tests.proxy.stack import Stack

MODEL = "gpt-4o-mini"
HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]

Ask = Callable[[AsyncOpenAI], Coroutine[Any, Any, None]]


async def plain_chat(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model=MODEL, messages=HELLO, n=2)
    assert len(completion.choices) == 2


async def streamed_chat(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


async def streamed_response(client: AsyncOpenAI) -> None:
    async with client.responses.stream(model="gpt-5-mini", input="Say hello.") as stream:
        kinds = [event.type async for event in stream]
    assert kinds[-1] == "response.completed"


async def embeddings(client: AsyncOpenAI) -> None:
    made = await client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    assert len(made.data) == 2


async def refused(client: AsyncOpenAI) -> None:
    with pytest.raises(sdk.BadRequestError):
        await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=-1)
    with pytest.raises(sdk.NotFoundError):
        await client.chat.completions.create(model="gpt-unheard-of", messages=HELLO)


async def limited(client: AsyncOpenAI) -> None:
    with pytest.raises(sdk.RateLimitError) as refusal:
        await client.chat.completions.create(
            model=MODEL, messages=HELLO, extra_headers={"x-sandbox-scenario": "status=429"}
        )
    assert refusal.value.request_id


async def test_mixed_calls_at_once_are_served_and_the_ledger_is_the_sum_of_upstreams_log(
    stack: Stack, openai: SimulatedOpenAI
) -> None:
    before = (await stack.balance()).available
    mix: list[Ask] = [plain_chat, streamed_chat, streamed_response, embeddings, refused, limited]
    async with stack.client() as client:
        await asyncio.gather(*(ask(client) for ask in mix * 8))
    await stack.lines()
    served = [entry for entry in openai.log.entries() if entry.status == 200]
    assert len(served) == 32
    spent = sum(price_of(stack.card, entry) for entry in served)
    assert before - (await stack.balance()).available == spent
    assert (await stack.stores.accounts.balance(stack.account.id)).total == before - spent
