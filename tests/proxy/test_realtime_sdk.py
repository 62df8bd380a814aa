"""The official SDK's Realtime client, and a browser's way, against the data plane before the simulated OpenAI."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, WSMsgType
from openai import AsyncOpenAI
from openai.types.realtime import RealtimeServerEvent
from websockets.exceptions import InvalidStatus

from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.stack import UPSTREAM_KEY, Running, Stack

MODEL = "gpt-realtime"


@pytest.fixture
async def selling(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Stack]:
    async with running(openai.url, realtime={"sessions": "unmetered", "closing_timeout_ms": 200}) as stack:
        yield stack


async def converse(stack: Stack) -> list[RealtimeServerEvent]:
    """One session with one response; returns all that the server said."""
    async with stack.client() as client, client.realtime.connect(model=MODEL) as connection:
        said = [await connection.recv()]
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        item: Any = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "Say hello. " * 1000}],
        }
        await connection.conversation.item.create(item=item)
        await connection.response.create()
        while said[-1].type != "response.done":
            said.append(await connection.recv())
    return said


async def test_the_sdk_converses_and_sees_what_it_used(selling: Stack, openai: SimulatedOpenAI) -> None:
    said = await converse(selling)
    assert [said[0].type, said[1].type, said[-1].type] == ["session.created", "session.updated", "response.done"]
    (entry,) = openai.log.entries()
    assert (entry.status, entry.model) == (101, MODEL)
    assert entry.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    done = said[-1]
    assert done.type == "response.done"
    assert done.response.usage is not None
    assert done.response.usage.output_tokens == entry.usage.completion


async def test_many_sessions_run_at_once(selling: Stack, openai: SimulatedOpenAI) -> None:
    sessions = await asyncio.gather(*(converse(selling) for _ in range(20)))
    assert all(said[-1].type == "response.done" for said in sessions)
    await selling.quiet()
    assert dict(selling.gateway.tally.sessions) == {"closed": 20}


async def test_a_browser_converses_with_its_key_among_the_subprotocols(selling: Stack) -> None:
    host, port = selling.address
    url = f"http://{host}:{port}/v1/realtime?model={MODEL}"
    offers = ("realtime", f"openai-insecure-api-key.{selling.key}")
    async with ClientSession() as browser, browser.ws_connect(url, protocols=offers) as socket:
        assert socket.protocol == "realtime"
        created = await socket.receive()
        assert created.type is WSMsgType.TEXT
        assert created.json()["type"] == "session.created"


async def refused(client: AsyncOpenAI, status: int, code: bytes) -> None:
    async with client:
        with pytest.raises(InvalidStatus) as refusal:
            await client.realtime.connect(model=MODEL).enter()
    assert refusal.value.response.status_code == status
    assert code in (refusal.value.response.body or b"")


async def test_the_sdk_hears_that_sessions_are_not_sold(stack: Stack) -> None:
    await refused(stack.client(), 403, b'"endpoint_not_allowed"')


async def test_the_sdk_hears_that_its_key_is_wrong(selling: Stack) -> None:
    await refused(selling.client("sk-tg-wrong"), 401, b'"invalid_api_key"')


async def test_the_sdk_hears_what_upstream_refuses(selling: Stack, openai: SimulatedOpenAI) -> None:
    openai.set_scenario("status=429")
    await refused(selling.client(), 429, b'"rate_limit_exceeded"')
