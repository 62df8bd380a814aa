"""/readyz, on both listeners: what keeps a gateway from taking calls, in one line."""

import json

from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.prices import CHAT, ask_of
from tests.proxy.stack import Running, Stack, until
from tests.proxy.wire import ask, request


async def missing(stack: Stack) -> str:
    """What both listeners say is missing, after the gateway has looked; "" when it is ready."""
    await stack.gateway.ready.step()
    got = await ask(stack.address, request("/readyz", "", method="GET"))
    reason: str = json.loads(got.body).get("reason", "")
    assert got.status == (503 if reason else 200)
    assert await stack.gateway.readiness() == reason
    return reason


async def test_a_gateway_is_not_ready_before_a_worker_has_built_the_shards(stack: Stack) -> None:
    assert await missing(stack) == ""
    await stack.stores.link.command(b"FLUSHALL")
    assert await missing(stack) == "64 of 64 shards are not built in Redis: is a worker running?"
    await stack.workers.rebuilder.step()
    async with stack.running_gateway() as gateway:
        await until(lambda: gateway.ready.missing == "")


async def test_a_gateway_is_not_ready_while_too_much_waits_to_be_posted(
    running: Running, openai: SimulatedOpenAI
) -> None:
    async with running(openai.url, settlement={"ready_backlog_events_max": 1}) as stack:
        for wanted in ("", "2 events wait to be posted: is PostgreSQL there, and a worker running?"):
            await ask(stack.address, request(CHAT, stack.key, ask_of(CHAT)))
            await stack.quiet()
            assert await missing(stack) == wanted
        await stack.post()
        assert await missing(stack) == ""


async def test_a_gateway_is_not_ready_while_redis_has_no_room(stack: Stack) -> None:
    command = stack.stores.link.command
    used = dict(line.split(b":", 1) for line in bytes(await command(b"INFO", b"memory")).split(b"\r\n") if b":" in line)
    await command(b"CONFIG", b"SET", b"maxmemory", int(used[b"used_memory"]))
    try:
        reason = await missing(stack)
    finally:
        await command(b"CONFIG", b"SET", b"maxmemory", 0)
    assert reason.startswith("Redis' memory is used to ")
    assert await missing(stack) == ""
