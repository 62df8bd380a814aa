"""What operators switch off is off within a second, and callers are told what, why and until when."""

import asyncio
import json
from typing import Any

from gateway.adapters.postgres.audit_log import Signature
from gateway.core.guard.flags import MAINTENANCE, PURCHASE, Scope
from gateway.sandbox.openai import SimulatedOpenAI
from tests.patience import PATIENCE_S
from tests.proxy.prices import CHAT, EMBEDDINGS, ask_of
from tests.proxy.stack import Stack, until
from tests.proxy.wire import Client, Received, ask, request

DRILL = Signature("ann", "database upgrade")
HALF_AN_HOUR_MS = 30 * 60 * 1000


async def call(stack: Stack, endpoint: str = CHAT, key: str = "") -> Received:
    return await ask(stack.address, request(endpoint, key or stack.key, ask_of(endpoint)))


async def status(stack: Stack, key: str = "") -> list[dict[str, Any]]:
    got = await ask(stack.address, request("/api/status", key, method="GET"))
    banners: list[dict[str, Any]] = json.loads(got.body)["banners"]
    return banners


async def followed(stack: Stack) -> None:
    """The gateway has seen the last change."""
    version = await stack.stores.pool.fetchval("SELECT version FROM controls_version")
    async with asyncio.timeout(PATIENCE_S):
        await until(lambda: stack.gateway.controls.version == version)


async def test_maintenance_refuses_every_call_until_it_is_over(stack: Stack, openai: SimulatedOpenAI) -> None:
    await stack.stores.flags.set(MAINTENANCE, True, Scope(), DRILL, for_ms=HALF_AN_HOUR_MS)
    await followed(stack)
    for target, method in ((CHAT, "POST"), ("/v1/models", "GET")):
        got = await ask(stack.address, request(target, stack.key, ask_of(CHAT), method=method))
        error = json.loads(got.body)["error"]
        assert (got.status, error["code"], error["why"]) == (503, "maintenance", "database upgrade")
        assert error["until"] in error["message"]
        assert 1790 <= int(got.get(b"retry-after") or 0) <= 1800
    assert len(openai.log) == 0
    no_text = [(b"Authorization", b"Bearer \xff")]
    got = await ask(stack.address, request("/api/status", "", fields=no_text, method="GET"))
    assert json.loads(got.body)["banners"] == await status(stack)
    (banner,) = await status(stack)
    assert (banner["flag"], banner["what"], banner["why"]) == (MAINTENANCE, "Down for maintenance", "database upgrade")
    await stack.stores.flags.clear(MAINTENANCE, DRILL)
    await followed(stack)
    assert (await call(stack)).status == 200
    assert await status(stack) == []


async def test_a_call_whose_body_is_long_in_coming_meets_what_was_switched_off_meanwhile(
    stack: Stack, openai: SimulatedOpenAI
) -> None:
    body = ask_of(CHAT)
    fields = [(b"Expect", b"100-continue"), (b"Content-Length", b"%d" % len(body))]
    head = request(CHAT, stack.key, fields=fields, method="post").replace(b"post ", b"POST ", 1)
    async with Client.connect(stack.address) as client:
        assert (await client.begin(head)).status == 100  # it was admitted, and its body is waited for
        await stack.stores.flags.set(MAINTENANCE, True, Scope(), DRILL)
        await followed(stack)
        assert (await client.ask(body)).status == 503
    assert len(openai.log) == 0


async def test_an_endpoint_is_switched_off_alone(stack: Stack) -> None:
    await stack.stores.flags.set("endpoint:/v1/embeddings", False, Scope(), DRILL)
    await followed(stack)
    refused = await call(stack, EMBEDDINGS)
    assert (refused.status, json.loads(refused.body)["error"]["code"]) == (503, "endpoint_off")
    assert (await call(stack, CHAT)).status == 200


async def test_what_concerns_one_account_is_told_to_it_alone(stack: Stack) -> None:
    other = await stack.new_account("other")
    await stack.stores.flags.set(MAINTENANCE, True, Scope(accounts=frozenset({other.id})), DRILL, banner="a rehearsal")
    await followed(stack)
    assert [(await call(stack, key=key)).status for key in (stack.key, other.key)] == [200, 503]
    assert [len(await status(stack, key)) for key in ("", "sk-tg-nonsense", stack.key, other.key)] == [0, 0, 0, 1]
    assert (await status(stack, other.key))[0]["why"] == "a rehearsal"


async def test_a_gateway_that_starts_serves_nothing_that_is_off(stack: Stack) -> None:
    await stack.stores.flags.set(MAINTENANCE, True, Scope(), DRILL)
    await stack.stores.link.command(b"FLUSHDB")  # Redis has no part in it
    async with stack.running_gateway(with_loops=False):
        assert json.loads((await call(stack)).body)["error"]["code"] == "maintenance"
    await stack.workers.rebuilder.step()


async def test_a_flag_at_its_default_refuses_nobody(stack: Stack) -> None:
    await stack.stores.flags.set(PURCHASE, False, Scope(percent=0), DRILL)
    await followed(stack)
    assert (await call(stack)).status == 200
    assert await status(stack, stack.key) == []
