"""A mixed load through the official SDK: calls that succeed, fail, break off and are left, many at once."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI

CHAT, LEGACY, THINKER, EMBEDDER = "gpt-4o-mini", "gpt-3.5-turbo-instruct", "gpt-5-mini", "text-embedding-3-small"
LEAVES_AFTER_S = 0.4

Call = Callable[[AsyncOpenAI], Awaitable[None]]

# What a caller may see when upstream breaks as ordered, or when it gives up itself. Anything else fails the load.
# The SDK reads no zstd, so that it takes such an answer for broken text.
EXPECTED = (openai.APIError, httpx2.HTTPError, json.JSONDecodeError, UnicodeDecodeError)


def messages(words: int = 5) -> Any:
    return [{"role": "user", "content": "word " * words}]


def orders(scenario: str) -> dict[str, str]:
    return {"x-sandbox-scenario": scenario} if scenario else {}


def chat(scenario: str = "", *, words: int = 5, timeout_s: float = 60, **options: Any) -> Call:
    async def call(client: AsyncOpenAI) -> None:
        await client.chat.completions.create(
            model=CHAT, messages=messages(words), extra_headers=orders(scenario), timeout=timeout_s, **options
        )

    return call


def stream(scenario: str = "", *, leaves_after: int | None = None, timeout_s: float = 60, **options: Any) -> Call:
    """A streamed chat; `leaves_after` so many events, its caller closes it."""

    async def call(client: AsyncOpenAI) -> None:
        stream: Any = await client.chat.completions.create(
            model=CHAT,
            messages=messages(),
            stream=True,
            extra_headers=orders(scenario),
            timeout=timeout_s,
            **options,
        )
        async with stream:
            await _read(stream, leaves_after)

    return call


def respond(scenario: str = "", *, leaves_after: int | None = None, **options: Any) -> Call:
    async def call(client: AsyncOpenAI) -> None:
        answer: Any = await client.responses.create(
            model=THINKER, input="Say something.", extra_headers=orders(scenario), **options
        )
        if options.get("stream"):
            async with answer:
                await _read(answer, leaves_after)

    return call


def complete(scenario: str = "", **options: Any) -> Call:
    async def call(client: AsyncOpenAI) -> None:
        answer: Any = await client.completions.create(
            model=LEGACY, prompt=["one", "two"], max_tokens=30, extra_headers=orders(scenario), **options
        )
        if options.get("stream"):
            async with answer:
                await _read(answer, None)

    return call


def embed(scenario: str = "", inputs: int = 3) -> Call:
    async def call(client: AsyncOpenAI) -> None:
        await client.embeddings.create(model=EMBEDDER, input=["some text"] * inputs, extra_headers=orders(scenario))

    return call


async def _read(stream: Any, leaves_after: int | None) -> None:
    count = 0
    async for _ in stream:
        count += 1
        if count == leaves_after:
            return


MIX: list[Call] = [
    *(chat(words=10 * n, max_completion_tokens=20 + n) for n in range(12)),
    *(stream() for _ in range(8)),
    *(stream(stream_options={"include_usage": True}) for _ in range(8)),
    *(respond() for _ in range(6)),
    *(respond(stream=True) for _ in range(6)),
    *(embed(inputs=n + 1) for n in range(6)),
    *(complete() for _ in range(4)),
    *(complete(stream=True) for _ in range(4)),
    chat(words=3000),
    chat("cached=1024", words=3000),
    chat("cached=2048,tier=priority", words=3000, service_tier="priority"),
    respond("tier=flex", service_tier="flex"),
    respond("tier=default", service_tier="priority"),
    chat("tier=scale", service_tier="auto"),
    chat("model=gpt-4o-mini-2024-07-18"),
    chat("model=gpt-4o-2024-08-06"),
    chat(n=4),
    respond("reasoning=300"),
    *(chat(f"status={status}") for status in (400, 404, 429, 429, 500, 500, 503)),
    *(stream(f"status={status}") for status in (429, 500, 503)),
    respond("status=500"),
    embed("status=429"),
    *(stream(f"cut={n}") for n in (0, 1, 2, 5, 9, 14)),
    *(stream(f"reset={n}") for n in (0, 2, 6)),
    *(stream(f"fail={n}") for n in (0, 1, 4, 8)),
    *(respond(f"cut={n}", stream=True) for n in (0, 4, 12)),
    *(respond(f"fail={n}", stream=True) for n in (1, 9)),
    complete("cut=5", stream=True),
    *(chat(f"cut={n}") for n in (0, 40)),
    chat("reset=40"),
    embed("cut=30"),
    *(chat("no-usage") for _ in range(2)),
    *(stream("no-usage") for _ in range(2)),
    respond("no-usage", stream=True),
    embed("no-usage"),
    *(chat(f"absurd-usage={kind}") for kind in ("negative", "huge", "details", "text")),
    *(stream(f"absurd-usage={kind}") for kind in ("negative", "huge", "details", "text")),
    respond("absurd-usage=huge"),
    *(chat("drop") for _ in range(3)),
    stream("drop"),
    chat("malformed"),
    stream("malformed"),
    *(chat(f"encoding={coding}") for coding in ("gzip", "deflate", "br", "zstd")),
    *(stream(f"encoding={coding}") for coding in ("gzip", "deflate", "br", "zstd")),
    *(
        stream(f"encoding={coding}", stream_options={"include_usage": True})
        for coding in ("gzip", "deflate", "br", "zstd")
    ),
    respond("encoding=gzip,split=7", stream=True),
    chat("split=11"),
    stream("split=3"),
    chat("no-content-length"),
    chat("stall", timeout_s=LEAVES_AFTER_S),
    chat("stall=20", timeout_s=LEAVES_AFTER_S),
    chat("slow-headers=600", timeout_s=LEAVES_AFTER_S),
    *(stream(f"stall={n}", timeout_s=LEAVES_AFTER_S) for n in (0, 1, 4)),
]

# Answers of a second and a half, whose callers leave at once; the last are not done when the drain's time is up.
LEAVERS: list[Call] = [
    *(stream("rate=16", leaves_after=n) for n in (1, 2, 3, 5)),
    *(stream("rate=16", leaves_after=n, stream_options={"include_usage": True}) for n in (1, 4)),
    *(respond("rate=16", stream=True, leaves_after=n) for n in (2, 6)),
    complete("rate=16", stream=True),
    *(stream("rate=4,tokens=60", leaves_after=n) for n in (1, 3)),
    respond("rate=4,tokens=60", stream=True, leaves_after=8),
]


async def run_mix(base_url: str, keys: list[str], mix: list[Call]) -> int:
    """Make every call at once, the keys taking turns; returns how many ended as failures that were to be expected."""
    clients = [AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) for key in keys]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_make(clients[n % len(clients)], call)) for n, call in enumerate(mix)]
    for client in clients:
        await client.close()
    return sum(task.result() for task in tasks)


async def _make(client: AsyncOpenAI, call: Call) -> bool:
    try:
        await call(client)
    except EXPECTED:
        return True
    return False
