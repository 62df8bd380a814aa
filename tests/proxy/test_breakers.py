"""Breakers in real gateways: two of them before the simulated OpenAI, sharing Redis, their calls made by the SDK."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from openai import APIStatusError, AsyncOpenAI, BadRequestError, InternalServerError, RateLimitError

from gateway.app.gateway import Gateway
from gateway.core.guard.breaker import State
from gateway.proxy.breakers import UPSTREAM
from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.stack import Running, Stack, until

MODEL, OTHER = "gpt-4o-mini", "gpt-4o"
QUICK = {"open_ms": 400, "open_ms_max": 400, "streak": 5, "flush_ms": 20, "window_ms": 2000, "bucket_ms": 200}


async def behave(openai: SimulatedOpenAI, scenario: str) -> None:
    """From now on, every request of the upstream goes so."""
    async with ClientSession() as http, http.put(f"{openai.url}/sandbox/scenario", data=scenario) as reply:
        reply.raise_for_status()


async def ask(client: AsyncOpenAI, model: str = MODEL) -> None:
    await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], max_completion_tokens=16
    )


async def code_of(client: AsyncOpenAI, model: str = MODEL) -> str:
    """What the gateway, or upstream behind it, answers: "" if it serves the call."""
    try:
        await ask(client, model)
    except APIStatusError as error:
        return str(error.code or error.status_code)
    return ""


def state(gateway: Gateway, name: str = MODEL) -> State:
    return dict(gateway.breakers.states()).get(name, State.CLOSED)


@pytest.fixture
async def stack(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Stack]:
    async with running(openai.url, breaker=QUICK) as stack:
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with stack.client() as client:
        yield client


async def open_breaker(client: AsyncOpenAI) -> None:
    for _ in range(QUICK["streak"]):
        with pytest.raises(InternalServerError):
            await ask(client)


async def test_an_outage_opens_it_on_both_gateways_and_probes_close_it(stack: Stack, openai: SimulatedOpenAI) -> None:
    first = stack.gateway
    async with stack.client() as one, stack.running_gateway() as second, stack.client() as two:
        await behave(openai, "status=500")
        await open_breaker(one)

        with pytest.raises(InternalServerError) as refusal:
            await ask(one)
        assert refusal.value.status_code == 503
        assert refusal.value.code == "model_unavailable"
        assert int(refusal.value.response.headers["retry-after"]) >= 1
        await until(lambda: state(second) is not State.CLOSED)
        assert await code_of(two) == "model_unavailable"
        assert await code_of(two, OTHER) != "model_unavailable", "only the model that failed"

        await behave(openai, "")
        await until(lambda: state(first) is state(second) is State.CLOSED)
        assert [await code_of(one), await code_of(two)] == ["", ""]
        assert sum(first.breakers.probes.values()) + sum(second.breakers.probes.values()) >= 3


async def test_a_refused_call_takes_no_hold_and_a_probe_costs_no_caller(
    stack: Stack, client: AsyncOpenAI, openai: SimulatedOpenAI
) -> None:
    await behave(openai, "status=500")
    await open_breaker(client)
    lines, before = len(await stack.lines()), await stack.balance()
    for _ in range(5):
        assert await code_of(client) == "model_unavailable"
    await behave(openai, "")
    await until(lambda: state(stack.gateway) is State.CLOSED)

    assert len(await stack.lines()) == lines
    assert await stack.balance() == before


async def test_no_caller_is_used_as_a_probe(stack: Stack, client: AsyncOpenAI, openai: SimulatedOpenAI) -> None:
    await behave(openai, "status=500")
    await open_breaker(client)
    await until(lambda: sum(stack.gateway.breakers.probes.values()) >= 2)

    assert {await code_of(client) for _ in range(10)} == {"model_unavailable"}


async def test_callers_own_errors_never_open_it(stack: Stack, client: AsyncOpenAI, openai: SimulatedOpenAI) -> None:
    await behave(openai, "status=400")
    for _ in range(30):
        with pytest.raises(BadRequestError):
            await ask(client)
    assert state(stack.gateway) is State.CLOSED


async def test_throttling_opens_it_when_there_is_much_of_it(
    stack: Stack, client: AsyncOpenAI, openai: SimulatedOpenAI
) -> None:
    await behave(openai, "status=429")
    for _ in range(2 * QUICK["streak"]):
        with pytest.raises(RateLimitError):
            await ask(client)
    assert await code_of(client) == "model_unavailable"


async def test_an_upstream_that_is_not_there_opens_the_breaker_of_all_models(running: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    async with running(nobody, breaker=QUICK) as stack, stack.client() as client:
        assert [await code_of(client) for _ in range(QUICK["streak"])] == ["upstream_unreachable"] * QUICK["streak"]
        assert state(stack.gateway, UPSTREAM) is State.OPEN
        assert await code_of(client, OTHER) == "model_unavailable"


async def test_a_gateway_acts_alone_while_redis_does_not_answer(
    stack: Stack, client: AsyncOpenAI, openai: SimulatedOpenAI
) -> None:
    """Calls need Redis for their holds, so it is away between the failures and the recovery only."""
    await behave(openai, "status=500")
    await open_breaker(client)
    await stack.stores.link.close()
    await behave(openai, "")

    await until(lambda: state(stack.gateway) is State.CLOSED)
    await stack.stores.link.open()
    await until(lambda: stack.stores.link.available)


async def test_the_fleet_adds_up_what_each_gateway_sees(stack: Stack, openai: SimulatedOpenAI) -> None:
    """Three failures here and three there open what neither alone would have opened."""
    first = stack.gateway
    async with stack.client() as one, stack.running_gateway() as second, stack.client() as two:
        await behave(openai, "status=500")
        for client in (one, two, one, two, one, two):
            assert await code_of(client) != ""
            await asyncio.sleep(0.05)
        await until(lambda: state(first) is not State.CLOSED and state(second) is not State.CLOSED)


async def test_metrics_tell_the_state_of_each_breaker(
    stack: Stack, client: AsyncOpenAI, openai: SimulatedOpenAI
) -> None:
    await behave(openai, "status=500")
    await open_breaker(client)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in stack.gateway.metrics()
        for sample in family.samples
    }
    assert samples["tollgate_breaker_state", UPSTREAM, "closed"] == 1
    assert samples["tollgate_breaker_state", MODEL, "closed"] == 0
    assert samples["tollgate_breaker_openings_total", MODEL] == 1
