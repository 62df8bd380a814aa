"""A gateway that is told to stop lets calls finish within its time, cuts the rest, and leaves nothing unsettled."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.sandbox.openai import SimulatedOpenAI
from gateway.sandbox.openai.log import Outcome
from tests.patience import PATIENCE_S
from tests.proxy.conftest import Logs
from tests.proxy.prices import CHAT, ask_of, price_of
from tests.proxy.stack import Stack, open_stack
from tests.proxy.wire import Client, ask, request

Opened = Callable[..., AbstractAsyncContextManager[Stack]]


@pytest.fixture
def opened(database_url: str, redis_url: str, openai: SimulatedOpenAI, tmp_path: Path, logs: Logs) -> Opened:
    """A stack without a gateway: each test starts and stops its own."""

    @asynccontextmanager
    async def opened(**sections: dict[str, Any]) -> AsyncIterator[Stack]:
        async with open_stack(database_url, redis_url, openai.url, tmp_path / "spool", **sections) as stack:
            yield stack
            assert await stack.complaints() == []
            assert await stack.held() == 0
        assert [entry for entry in logs if entry["event"] == "handler failed"] == []

    return opened


async def begin(stack: Stack, clients: AsyncExitStack, orders: str, *, stream: bool = True) -> Client:
    client = await clients.enter_async_context(Client.connect(stack.address))
    body = ask_of(CHAT, stream=stream)
    client.writer.write(request(CHAT, stack.key, body, [(b"x-sandbox-scenario", orders.encode())]))
    if stream:
        await client.read_until(b'"content":"')
    return client


async def test_calls_that_end_in_time_are_whole_and_the_others_are_cut_and_all_are_settled(
    opened: Opened, openai: SimulatedOpenAI
) -> None:
    async with opened(disconnect={"drain_s": 120}) as stack, AsyncExitStack() as clients:
        async with stack.running_gateway() as gateway:
            soon = await begin(stack, clients, "tokens=20,rate=40")
            plain = await begin(stack, clients, "ttft=300", stream=False)
            late = [await begin(stack, clients, "tokens=90,stall=9") for _ in range(3)]
            late.append(await begin(stack, clients, "stall", stream=False))
            left = await begin(stack, clients, "tokens=90,stall=9")
            left.leave()  # and is being drained, for two minutes as far as the policy goes
            await openai.log.wait_until(
                lambda log: log.arrived == 7 and all(entry.body_bytes for entry in log.entries())
            )
            assert len(gateway.leases) == 7
            started = time.monotonic()
        assert time.monotonic() - started < PATIENCE_S  # and not two minutes
        assert b"[DONE]" in await soon.reader.read()
        assert b'"usage"' in await plain.reader.read()
        for client in late:
            assert b"[DONE]" not in await client.reader.read()
        lines, entries = await stack.lines(), openai.log.entries()
        assert sorted(line.outcome for line in lines) == ["estimated"] * 4 + ["exact"] * 2 + ["void"]
        assert sorted(entry.outcome for entry in entries) == [Outcome.CLIENT_GONE] * 5 + [Outcome.COMPLETE] * 2
        complete = [price_of(stack.card, entry) for entry in entries if entry.outcome is Outcome.COMPLETE]
        assert sorted(line.cost for line in lines if line.outcome == "exact") == sorted(complete)


async def test_a_stopping_gateway_takes_no_new_calls(opened: Opened, openai: SimulatedOpenAI) -> None:
    async with opened() as stack, AsyncExitStack() as clients:
        async with stack.running_gateway() as gateway:
            waiting = await clients.enter_async_context(Client.connect(stack.address))
            assert (await waiting.ask(request("/health", "", method="GET"))).status == 200
            running = await begin(stack, clients, "tokens=20,rate=40")
            gateway.exchange.is_stopping = True
            got = await waiting.ask(request(CHAT, stack.key, ask_of(CHAT)))
            assert (got.status, b'"shutting_down"' in got.body) == (503, True)
            assert got.get(b"retry-after") == b"1"
            assert (await waiting.ask(request("/readyz", "", method="GET"))).status == 503
        assert b"[DONE]" in await running.reader.read()
        assert len(openai.log) == 1
        with pytest.raises(ConnectionError):
            await ask(stack.address, request("/health", "", method="GET"))


async def test_handlers_that_are_cancelled_at_the_very_end_lose_no_settlement(
    opened: Opened, openai: SimulatedOpenAI
) -> None:
    """Redis hangs longer than the gateway may take to stop: the next gateway settles what this one wrote down."""
    async with (
        opened(redis={"command_timeout_ms": 60_000}) as stack,
        aclosing(Redis.from_url(stack.config.redis_url)) as redis,
    ):
        try:
            async with stack.running_gateway() as gateway, AsyncExitStack() as clients:
                await ask(stack.address, request(CHAT, stack.key, ask_of(CHAT)))
                await stack.quiet()
                client = await begin(stack, clients, "tokens=20,rate=200")
                await redis.client_pause(60_000, all=False)
                await client.read_until(b"[DONE]\n\n")
                (settling,) = [task for task in asyncio.all_tasks() if "Server._answer" in repr(task.get_coro())]
                settling.cancel()
                await stack.quiet()
                assert gateway.settlements.spooled == 1
        finally:
            await redis.client_unpause()
        assert sum(path.stat().st_size for path in Path(stack.config.spool_dir).iterdir()) > 0
        async with stack.running_gateway():
            lines = await stack.lines()
        assert [line.cost for line in lines] == [price_of(stack.card, entry) for entry in openai.log.entries()]
