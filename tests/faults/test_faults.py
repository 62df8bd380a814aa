"""Each part is killed, emptied or stopped under load: what callers see, and that the books come out right."""

import asyncio
import json
import urllib.error
import urllib.request

from openai import AsyncOpenAI
from redis import Redis

from tests.faults.load import HELLO, MODEL, load
from tests.faults.reckoning import reckon
from tests.faults.tree import Tree
from tests.patience import PATIENCE_S
from tests.up import Stack

CREDITS = 10_000
REFUSED_S_MAX = 10.0  # it does not hang; the design says 250 ms, but a test shares its machine


def ready_reason(up: Stack) -> str:
    """What /readyz says is missing; "" when it is ready."""
    try:
        with urllib.request.urlopen(f"{up.ops_url}/readyz", timeout=5) as reply:
            status, body = reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        status, body = error.code, json.load(error)
    assert (status == 200) == ("reason" not in body)
    reason: str = body.get("reason", "")
    return reason


async def wait_ready(up: Stack) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(ready_reason, up):
            await asyncio.sleep(0.05)


async def test_a_killed_gateway_charges_its_progress_and_releases_the_rest(up: Stack, tree: Tree) -> None:
    account, key = await asyncio.to_thread(up.new_caller, "gateway-killed", CREDITS)
    async with AsyncOpenAI(base_url=up.base_url, api_key=key, max_retries=0) as client:
        streams = [
            await client.chat.completions.create(
                model=MODEL, messages=HELLO, stream=True, extra_headers={"x-sandbox-scenario": "rate=20,tokens=200"}
            )
            for _ in range(3)
        ]
        begun = [[await anext(stream) for _ in range(40)] for stream in streams]  # two seconds: all were renewed
        killed = tree.kill("serve")
        for stream in streams:
            await stream.close()
        assert all(begun)
        await asyncio.to_thread(tree.wait_restarted, "serve", killed)
        await client.chat.completions.create(model=MODEL, messages=HELLO, timeout=PATIENCE_S)
    lines = await asyncio.to_thread(reckon, up, account, "", CREDITS, gateway_died=True)
    lapsed = [line for line in lines if line["outcome"] == "lapsed"]
    assert len(lapsed) == len(streams)
    assert all(line["charged"] > 0 for line in lapsed)


async def test_a_killed_gateway_under_load_leaves_nothing_held(up: Stack, tree: Tree) -> None:
    account, key = await asyncio.to_thread(up.new_caller, "gateway-killed-busy", CREDITS)
    async with load(up.base_url, key, "gateway-killed-busy") as running:
        await running.wait_for("ok", 8)
        killed = tree.kill("serve")
        await asyncio.to_thread(tree.wait_restarted, "serve", killed)
        await running.wait_for("ok", 8)
    assert running.seen.keys() <= {"ok", "broken"}
    await asyncio.to_thread(reckon, up, account, "gateway-killed-busy", CREDITS, gateway_died=True)


async def test_a_worker_killed_while_posting_loses_nothing_and_posts_nothing_twice(up: Stack, tree: Tree) -> None:
    account, key = await asyncio.to_thread(up.new_caller, "worker-killed", CREDITS)
    async with load(up.base_url, key, "worker-killed") as running:
        for _ in range(2):
            await running.wait_for("ok", 10)
            killed = tree.kill("work")
            await running.wait_for("ok", 10)
            await asyncio.to_thread(tree.wait_restarted, "work", killed)
    assert running.seen.keys() == {"ok"}
    await asyncio.to_thread(reckon, up, account, "worker-killed", CREDITS)


async def test_a_killed_redis_stops_new_calls_with_503_until_it_is_back(up: Stack, tree: Tree) -> None:
    account, key = await asyncio.to_thread(up.new_caller, "redis-killed", CREDITS)
    async with load(up.base_url, key, "redis-killed") as running:
        await running.wait_for("ok", 8)
        tree.kill("redis")
        await running.wait_for("503")
        await running.wait_for("ok", 8)
    assert running.seen.keys() == {"ok", "503"}
    await wait_ready(up)
    await asyncio.to_thread(reckon, up, account, "redis-killed", CREDITS)


async def test_a_killed_postgres_is_not_noticed_by_callers(up: Stack, tree: Tree) -> None:
    account, key = await asyncio.to_thread(up.new_caller, "postgres-killed", CREDITS)
    async with load(up.base_url, key, "postgres-killed") as running:
        await running.wait_for("ok", 8)
        killed = tree.kill("postgres")
        await running.wait_for("ok", 30)
        await asyncio.to_thread(tree.wait_restarted, "postgres", killed)
        await running.wait_for("ok", 8)
    assert running.seen.keys() == {"ok"}
    await wait_ready(up)
    await asyncio.to_thread(reckon, up, account, "postgres-killed", CREDITS)


async def test_an_emptied_redis_is_rebuilt_under_load(up: Stack) -> None:
    account, key = await asyncio.to_thread(up.new_caller, "redis-emptied", CREDITS)
    async with load(up.base_url, key, "redis-emptied") as running:
        await running.wait_for("ok", 8)
        with Redis.from_url(up.ready["redis_url"]) as redis:
            redis.flushall()
        await running.wait_for("503")
        await running.wait_for("ok", 8)
    assert running.seen.keys() == {"ok", "503"}
    await asyncio.to_thread(reckon, up, account, "redis-emptied", CREDITS)


async def test_a_redis_that_stands_still_makes_calls_fail_fast_and_is_told_by_readyz(up: Stack, tree: Tree) -> None:
    account, key = await asyncio.to_thread(up.new_caller, "redis-stopped", CREDITS)
    async with load(up.base_url, key, "redis-stopped") as running:
        await running.wait_for("ok", 8)
        with tree.stopped("redis"):
            await running.wait_for("503", 4)
            assert "Redis" in await asyncio.to_thread(ready_reason, up)
            await asyncio.sleep(2)
        await running.wait_for("ok", 8)
    assert running.seen.keys() == {"ok", "503"}
    assert running.slowest_503_s < REFUSED_S_MAX
    await wait_ready(up)
    await asyncio.to_thread(reckon, up, account, "redis-stopped", CREDITS)
