"""A sliced call whose gateway dies, or whose Redis goes away: its hold is as it had grown, and nobody overdraws."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from gateway.sandbox.openai import SimulatedOpenAI
from gateway.sandbox.valkey import EmbeddedRedis
from tests.patience import PATIENCE_S
from tests.proxy.conftest import Logs
from tests.proxy.own_redis import OwnStack, stopped
from tests.proxy.prices import CHAT
from tests.proxy.stack import Account, Stack, open_stack, until
from tests.proxy.test_caps import body
from tests.proxy.test_leases import SHORT, lapse
from tests.proxy.test_slices import SLICES, account_with, assert_exact, cost_of
from tests.proxy.wire import Client, request

FIRST_SLICE = SLICES["output_tokens"]


@asynccontextmanager
async def streaming(stack: Stack, account: Account, orders: str) -> AsyncIterator[Client]:
    """A sliced stream whose first text has come."""
    async with Client.connect(stack.address) as client:
        asked = body(stream=True, max_tokens=16_000)
        head = await client.begin(request(CHAT, account.key, asked, [(b"x-sandbox-scenario", orders.encode())]))
        assert head.get(b"x-gateway-output-slice") == b"%d; by=balance" % FIRST_SLICE
        await client.read_until(b'"content":"')
        yield client


async def test_a_dead_gateways_sliced_hold_lapses_with_what_it_had_grown_to(
    database_url: str, redis_url: str, openai: SimulatedOpenAI, tmp_path: Path, logs: Logs
) -> None:
    sections: dict[str, Any] = SHORT | {"upstream": {"body_idle_timeout_ms": 5000}, "slices": SLICES}
    opened = open_stack(database_url, redis_url, openai.url, tmp_path / "spool", **sections)
    async with opened as stack, stack.running_gateway(with_loops=False):
        account = await account_with(stack, 900)
        async with streaming(stack, account, "tokens=2000,stall=500"):
            await openai.log.wait_until(lambda log: log[0].events == 500)
            await until_held(stack, account, cost_of(stack, 3 * FIRST_SLICE))
            async with asyncio.timeout(PATIENCE_S):
                while not await stack.gateway.leases.renew_due():
                    await asyncio.sleep(0.02)
            held = (await stack.balance(account)).held
            await lapse(stack)
            await stack.post()
            (row,) = await stack.stores.pool.fetch("SELECT outcome, held, cost FROM call_usage")
            assert (row["outcome"], row["held"]) == ("lapsed", held)
            assert 0 < row["cost"] <= held
            assert (await stack.balance(account)).held == 0
        end, late = await stack.lines()
        assert (end.outcome, late.phase) == ("lapsed", "correction")
        assert await stack.complaints() == []
        assert (await stack.balance(account)).available >= 0


async def until_held(stack: Stack, account: Account, amount: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await stack.balance(account)).held < amount:
            await asyncio.sleep(0.02)


async def test_without_redis_a_sliced_answer_ends_with_its_slice(
    own: OwnStack, redis: EmbeddedRedis, openai: SimulatedOpenAI
) -> None:
    async with own(slices=SLICES) as stack, stack.running_gateway() as gateway:
        account = await account_with(stack, 2000)
        async with streaming(stack, account, "tokens=2000,rate=400") as client:
            with stopped(redis):
                rest = await client.read_until(b"[DONE]\n\n")
                await stack.quiet()
            assert b'"finish_reason":"length"' in rest
        await stack.stores.link.wait_available()
        await until(lambda: gateway.settlements.spooled == 0)
        line = await stack.line()
        assert (line.outcome, line.flags) == ("estimated", "sliced")
        assert FIRST_SLICE // 2 < line.usage.output < FIRST_SLICE
        assert_exact(stack, line)
        assert await stack.complaints() == []
        assert await stack.held() == 0


async def test_a_sliced_answer_goes_on_after_redis_was_emptied_and_rebuilt(
    own: OwnStack, redis: EmbeddedRedis, openai: SimulatedOpenAI
) -> None:
    patient = SLICES | {"wait_ms": 20_000}
    async with own(slices=patient) as stack, stack.running_gateway():
        account = await account_with(stack, 900)
        async with streaming(stack, account, "tokens=2000,rate=400") as client:
            await until_held(stack, account, cost_of(stack, 2 * FIRST_SLICE))
            async with aclosing(Redis.from_url(stack.config.redis_url)) as other:
                await other.flushall()
            assert await stack.workers.rebuilder.step() == 64
            rest = await client.read_until(b"[DONE]\n\n")
            assert b'"finish_reason":"length"' in rest
        line = await stack.line()
        assert line.usage.output > 3 * FIRST_SLICE
        assert_exact(stack, line)
        assert (await stack.balance(account)).available >= 0
        assert await stack.complaints() == []
        assert await stack.held() == 0
