"""Reading OpenAI's usage and costs: whole days, every page, and nothing taken for an answer that is none."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.adapters.openai.reports import PAGES_MAX, OpenAIReports, ReportsUnavailable
from gateway.core.accounting.reconciliation import Tokens
from gateway.sandbox.openai import SandboxOpenAISettings, SimulatedOpenAI
from tests.patience import PATIENCE_S

NOON_S = 1_795_262_400
DAY = date(2026, 11, 21)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def reports(url: str, key: str = "sk-admin", attempts_max: int = 3) -> OpenAIReports:
    return OpenAIReports(url, key, timeout_s=PATIENCE_S, attempts_max=attempts_max)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[OpenAIReports]:
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    async with TestServer(app) as server:
        yield reports(str(server.make_url("")).rstrip("/"))


async def test_a_day_is_read_by_model_with_its_cost() -> None:
    settings = SandboxOpenAISettings(admin_key="sk-admin")
    async with (
        SimulatedOpenAI(settings, clock=lambda: NOON_S) as upstream,
        aiohttp.ClientSession(upstream.url) as session,
    ):
        chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there."}]}
        used = []
        for _ in range(2):
            async with session.post("/v1/chat/completions", json=chat) as answer:
                used.append((await answer.json())["usage"])
        embed = {"model": "text-embedding-3-small", "input": "Hello there."}
        async with session.post("/v1/embeddings", json=embed) as answer:
            embedded = (await answer.json())["usage"]["prompt_tokens"]
        read = reports(upstream.url)
        tokens, cost = await read.tokens(DAY), await read.cost(DAY, DAY)
        assert await read.tokens(date(2026, 11, 20)) == {}
        with pytest.raises(ReportsUnavailable, match="OPENAI_ADMIN_KEY"):
            await reports(upstream.url, "sk-wrong").tokens(DAY)
    into, out = used[0]["prompt_tokens"], used[0]["completion_tokens"]
    assert tokens == {
        "gpt-4o": Tokens(2 * into, 2 * out, 2),
        "text-embedding-3-small": Tokens(embedded, 0, 1),
    }
    assert cost == pytest.approx(2 * (into * 2500 + out * 10_000) + embedded * 20, abs=1)  # nano-dollars a token


async def test_every_page_is_read_and_the_sum_is_exact() -> None:
    async def handler(request: web.Request) -> web.Response:
        number = int(request.query.get("page", "0"))
        result = '{"amount": {"value": 0.1, "currency": "usd"}}'
        more = f'true, "next_page": "{number + 1}"' if number < 2 else "false"
        return web.Response(text=f'{{"data": [{{"results": [{result}]}}], "has_more": {more}}}')

    async with serving(handler) as read:
        assert await read.cost(DAY, DAY) == 300_000_000


async def test_a_busy_or_broken_moment_is_tried_again() -> None:
    answers = iter([429, 503, 200])

    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"data": [], "has_more": False}, status=next(answers))

    async with serving(handler) as read:
        assert await read.cost(DAY, DAY) == 0


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, "{}"),
        (401, "{}"),
        (302, ""),
        (200, "<html>"),
        (200, '{"data": [{"results": [{"amount": {"value": "x"}}]}]}'),
        (200, '{"data": [{"results": [{"amount": {"value": 1, "currency": "eur"}}]}]}'),
    ],
)
async def test_what_is_no_answer_is_never_taken_for_a_day_without_cost(status: int, body: str) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    async with serving(handler) as read:
        with pytest.raises(ReportsUnavailable):
            await read.cost(DAY, DAY)


async def test_pages_without_end_are_given_up() -> None:
    asked = 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"data": [], "has_more": True, "next_page": "again"})

    async with serving(handler) as read:
        with pytest.raises(ReportsUnavailable, match="pages"):
            await read.cost(DAY, DAY)
    assert asked == PAGES_MAX


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(ReportsUnavailable, match="cannot be asked"):
        await reports("http://127.0.0.1:1", attempts_max=2).tokens(DAY)
