"""A running call keeps its hold; an abandoned one lapses, its progress charged; a late settlement corrects it once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.sandbox.openai import SimulatedOpenAI, TokenCounts
from tests.patience import PATIENCE_S
from tests.proxy.conftest import Logs
from tests.proxy.prices import CHAT, ask_of, price_of, price_of_counts
from tests.proxy.stack import Running, Stack, open_stack
from tests.proxy.test_endings import HELLO_TOKENS
from tests.proxy.wire import Client, request

SHORT = {"holds": {"lease_ms": 1000, "renew_ms": 100}}


@asynccontextmanager
async def eleven_words(stack: Stack, orders: str = "tokens=100,stall=12") -> AsyncIterator[Client]:
    """A stream of which eleven words have come, and no more will."""
    async with Client.connect(stack.address) as client:
        body = ask_of(CHAT, stream=True)
        client.writer.write(request(CHAT, stack.key, body, [(b"x-sandbox-scenario", orders.encode())]))
        for _ in range(12):
            await client.read_until(b'"content":"')
        await client.read_until(b"\n\n")
        yield client


async def lapse(stack: Stack) -> None:
    """Wait until the sweeper finds a lease that has run out."""
    async with asyncio.timeout(PATIENCE_S):
        while not await stack.workers.sweeper.step():
            await asyncio.sleep(0.02)


@pytest.fixture
async def unattended(
    database_url: str, redis_url: str, openai: SimulatedOpenAI, tmp_path: Path, logs: Logs
) -> AsyncIterator[Stack]:
    """A stack whose gateway renews nothing by itself."""
    sections: dict[str, Any] = SHORT | {"upstream": {"body_idle_timeout_ms": 5000}}
    opened = open_stack(database_url, redis_url, openai.url, tmp_path / "spool", **sections)
    async with opened as stack, stack.running_gateway(with_loops=False):
        yield stack
        assert await stack.complaints() == []
        assert await stack.held() == 0
    assert [entry for entry in logs if entry["event"] == "handler failed"] == []


async def test_a_call_longer_than_its_lease_keeps_its_hold(running: Running, openai: SimulatedOpenAI) -> None:
    async with running(openai.url, **SHORT) as stack:
        async with eleven_words(stack, "tokens=50,rate=30") as client:
            ended = asyncio.create_task(client.read_until(b"[DONE]\n\n"))
            while not ended.done():
                assert await stack.workers.sweeper.step() == 0
                assert (await stack.balance()).held > 0 or ended.done()
                await asyncio.sleep(0.05)
            await ended
        line = await stack.line()
        assert (line.phase, line.outcome, line.cost) == ("end", "exact", price_of(stack.card, openai.log[0]))


async def test_a_lapse_charges_the_last_progress_and_a_late_settlement_corrects_it_once(
    unattended: Stack, openai: SimulatedOpenAI
) -> None:
    stack = unattended
    before = (await stack.balance()).available
    async with eleven_words(stack, "tokens=100,stall=30"):
        async with asyncio.timeout(PATIENCE_S):
            await openai.log.wait_until(lambda log: log[0].events == 30)
            while not await stack.gateway.leases.renew_due():
                await asyncio.sleep(0.02)
        await lapse(stack)
        assert await stack.workers.sweeper.step() == 0
        await stack.post()
        rows = await stack.stores.pool.fetch("SELECT outcome, cost FROM call_usage")
        assert [row["outcome"] for row in rows] == ["lapsed"]
        progress = rows[0]["cost"]
        assert 0 < progress < price_of_counts(stack.card, "gpt-4o-mini", "", TokenCounts(prompt=99, completion=99))
        assert (await stack.balance()).available == before - progress
        stack.gateway.relay.stop_draining()
    truly = price_of_counts(stack.card, "gpt-4o-mini", "", TokenCounts(prompt=HELLO_TOKENS, completion=29))
    end, correction = await stack.lines()
    assert (end.phase, end.outcome, end.charged, end.flags) == ("end", "lapsed", progress, "lapsed")
    assert (correction.phase, correction.outcome) == ("correction", "estimated")
    assert correction.charged == truly - progress
    assert (await stack.balance()).available == before - truly


async def test_a_lapse_without_progress_charges_nothing(unattended: Stack, openai: SimulatedOpenAI) -> None:
    stack = unattended
    before = (await stack.balance()).available
    async with eleven_words(stack, "tokens=60,rate=25") as client:
        await lapse(stack)
        assert (await stack.balance()).available == before
        await client.read_until(b"[DONE]\n\n")
    end, correction = await stack.lines()
    assert (end.outcome, end.charged) == ("lapsed", 0)
    assert (correction.outcome, correction.charged) == ("exact", price_of(stack.card, openai.log[0]))


async def test_a_renewal_after_the_lapse_changes_nothing(unattended: Stack) -> None:
    stack = unattended
    async with eleven_words(stack):
        await lapse(stack)
        held = (await stack.balance()).held
        assert await stack.gateway.leases.renew_due() == 1
        assert (await stack.balance()).held == held == 0
        stack.gateway.relay.stop_draining()
    assert [line.phase for line in await stack.lines()] == ["end", "correction"]
