"""Each level of a brownout, as callers of the official SDK meet it, on two gateways."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from openai import AsyncOpenAI, InternalServerError
from openai.types.chat import ChatCompletion

from gateway.adapters.postgres.audit_log import Signature
from gateway.core.access.callers import Priority
from gateway.core.access.key_terms import KeyTerms
from gateway.core.guard.brownout import Level
from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.stack import Running, Stack, until
from tests.proxy.wire import ask, request

ANN = Signature("ann", "too slow")
MODEL, CHEAPER = "gpt-4o", "gpt-4o-mini"


async def set_level(stack: Stack, level: Level, models: str = MODEL, **settings: Any) -> None:
    """A brownout that every gateway follows."""
    plain: dict[str, Any] = {"for_ms": 60_000, "shed_percent": 100, "output_tokens": 16, "reroute_to": CHEAPER}
    made = await stack.stores.brownouts.set(models, level, ANN, **(plain | settings))
    await until(lambda: _follows(stack, made))


def _follows(stack: Stack, brownout: object) -> bool:
    brownouts = stack.gateway.controls.snapshot().brownouts
    return brownouts is not None and brownout in brownouts.brownouts


async def chat(client: AsyncOpenAI, **options: Any) -> tuple[ChatCompletion, dict[str, str]]:
    """What is answered, and the gateway's headers."""
    plain: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
    raw = await client.chat.completions.with_raw_response.create(**(plain | options))
    return raw.parse(), {name.lower(): value for name, value in raw.headers.items() if name.lower().startswith("x-")}


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with stack.client() as client:
        yield client


async def test_level_1_refuses_low_priority_accounts_only(stack: Stack) -> None:
    low = await stack.new_account("low")
    await stack.stores.pool.execute("UPDATE account SET priority = 'low' WHERE id = $1::text::uuid", low.id)
    normal = await stack.new_account("normal")
    await set_level(stack, Level.SHED)

    async with stack.client(low.key) as shed, stack.client(normal.key) as served:
        with pytest.raises(InternalServerError, match="too slow") as refusal:
            await chat(shed)
        assert refusal.value.code == "model_browned_out"
        assert 1 <= int(refusal.value.response.headers["retry-after"]) <= 60
        await chat(shed, model=CHEAPER)
        await chat(served)


async def test_level_1_refuses_low_priority_keys_of_an_account_that_is_not(stack: Stack) -> None:
    low, _ = await stack.stores.keys.issue(stack.account.id, KeyTerms(priority=Priority.LOW))
    await set_level(stack, Level.SHED)

    async with stack.client(low) as shed, stack.client() as served:
        with pytest.raises(InternalServerError, match="too slow") as refusal:
            await chat(shed)
        assert refusal.value.code == "model_browned_out"
        await chat(shed, model=CHEAPER)
        await chat(served)


async def test_level_2_caps_the_answer_and_says_so(stack: Stack, client: AsyncOpenAI) -> None:
    await set_level(stack, Level.TRIM)

    answer, headers = await chat(client, service_tier="priority", max_completion_tokens=1000)

    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 16
    assert answer.choices[0].finish_reason == "length"
    assert answer.service_tier == "default"
    assert headers["x-gateway-brownout"] == "level=2"
    assert headers["x-gateway-output-limit"] == "16; by=brownout"
    assert headers["x-gateway-service-tier"] == "default"


async def test_level_3_serves_the_cheaper_model_to_who_allows_it_and_prices_that(
    stack: Stack, client: AsyncOpenAI
) -> None:
    await set_level(stack, Level.REROUTE)

    other, headers = await chat(client, extra_headers={"x-gateway-fallback": "allow"})
    same, _ = await chat(client)

    assert (other.model, same.model) == (CHEAPER, MODEL)
    assert headers["x-gateway-rerouted"] == f"from={MODEL}, to={CHEAPER}"
    assert [line.model for line in await stack.lines()] == [CHEAPER, MODEL]
    assert await stack.complaints() == []


async def test_level_3_reroutes_a_stream_too(stack: Stack, client: AsyncOpenAI) -> None:
    await set_level(stack, Level.REROUTE)

    events = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        extra_headers={"x-gateway-fallback": "allow"},
    )

    assert {event.model async for event in events} == {CHEAPER}


async def test_a_rerouted_call_asks_for_no_more_output_than_the_other_model_can_write(
    stack: Stack, client: AsyncOpenAI
) -> None:
    await set_level(stack, Level.REROUTE, "gpt-5", reroute_to="gpt-4o-mini")

    other, headers = await chat(
        client, model="gpt-5", max_completion_tokens=100_000, extra_headers={"x-gateway-fallback": "allow"}
    )

    assert other.model == "gpt-4o-mini"
    assert headers["x-gateway-output-limit"].endswith("by=brownout")


@pytest.mark.parametrize("other", ["gpt-4o", "nothing-sold"])
async def test_nobody_is_rerouted_to_a_model_that_is_dearer_or_none(
    stack: Stack, client: AsyncOpenAI, other: str
) -> None:
    await set_level(stack, Level.REROUTE, "gpt-4.1-mini", reroute_to=other)

    served, headers = await chat(client, model="gpt-4.1-mini", extra_headers={"x-gateway-fallback": "allow"})

    assert served.model == "gpt-4.1-mini"
    assert (headers.get("x-gateway-rerouted"), headers["x-gateway-brownout"]) == (None, "level=3")


async def test_level_4_refuses_all_and_the_status_tells_why(stack: Stack, client: AsyncOpenAI) -> None:
    await set_level(stack, Level.REFUSE, "gpt-4*", banner="Back at noon")
    before = await stack.balance()

    with pytest.raises(InternalServerError, match="Back at noon") as refusal:
        await chat(client)
    assert refusal.value.status_code == 503
    assert await stack.balance() == before
    status = msgspec.json.decode((await ask(stack.address, request("/api/status", "", method="GET"))).body)
    assert [(each["what"], each["why"]) for each in status["banners"]] == [("gpt-4* is not served", "Back at noon")]


async def test_a_brownout_takes_effect_on_every_gateway_and_ends_so(
    stack: Stack,
) -> None:
    first = stack.gateway
    async with stack.running_gateway() as second:
        await stack.stores.brownouts.set(MODEL, Level.REFUSE, ANN, for_ms=60_000, shed_percent=0, output_tokens=1)
        await until(lambda: all(each.controls.snapshot().brownouts is not None for each in (first, second)))
        await stack.stores.brownouts.clear(MODEL, ANN)
        await until(lambda: all(each.controls.snapshot().brownouts is None for each in (first, second)))


RULES = {"expensive": ["gpt-4o*"], "rule_level": 4, "rule_calls_min": 5, "rule_ms": 20}


async def test_a_rule_reduces_an_expensive_model_whose_calls_fail(running: Running, openai: SimulatedOpenAI) -> None:
    async with running(openai.url, brownout=RULES) as stack, stack.client() as client:
        failing = {"x-sandbox-scenario": "status=500"}
        for _ in range(5):
            with pytest.raises(InternalServerError):
                await chat(client, extra_headers=failing)
        await until(lambda: stack.gateway.controls.snapshot().brownouts is not None)

        with pytest.raises(InternalServerError) as refusal:
            await chat(client)
        assert refusal.value.code == "model_browned_out"
        (brownout,) = await stack.stores.brownouts.list()
        assert (brownout.models, brownout.author) == (MODEL, "rule:errors")
        assert brownout.reason == "5 of 5 calls failed in 60 s"
