"""What the simulated OpenAI reports of a day's usage and costs: over plain HTTP, and as its own SDK reads it."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from gateway.sandbox.openai import SandboxOpenAISettings, SimulatedOpenAI

DAY_S = 86_400
NOON_S = 1_795_262_400
CHAT = "/v1/chat/completions"
USAGE, COSTS = "/v1/organization/usage/completions", "/v1/organization/costs"
ADMIN = {"Authorization": "Bearer sk-admin"}


class Clock:
    def __init__(self) -> None:
        self.now_s = float(NOON_S)

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def upstream(clock: Clock) -> AsyncIterator[SimulatedOpenAI]:
    async with SimulatedOpenAI(SandboxOpenAISettings(admin_key="sk-admin"), clock=clock) as running:
        yield running


@pytest.fixture
async def session(upstream: SimulatedOpenAI) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(upstream.url) as opened:
        yield opened


async def chat(session: aiohttp.ClientSession, model: str = "gpt-4o", scenario: str = "") -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello there."}]}
    async with session.post(CHAT, json=body, headers={"x-sandbox-scenario": scenario}) as answer:
        return (await answer.json()).get("usage")


async def results(session: aiohttp.ClientSession, path: str, start_s: int = NOON_S, **more: str) -> Any:
    """What the first bucket holds."""
    asked = {"start_time": str(start_s), **more}
    async with session.get(path, params=asked, headers=ADMIN) as answer:
        assert answer.status == 200, await answer.text()
        return (await answer.json())["data"][0]["results"]


async def test_a_days_usage_is_the_sum_of_what_was_served(session: aiohttp.ClientSession) -> None:
    used = [await chat(session), await chat(session), await chat(session, "gpt-4o-mini")]
    await chat(session, scenario="status=500")
    (whole,) = await results(session, USAGE)
    assert whole["input_tokens"] == sum(each["prompt_tokens"] for each in used)
    assert whole["output_tokens"] == sum(each["completion_tokens"] for each in used)
    assert (whole["num_model_requests"], whole["model"]) == (3, None)
    by_model = await results(session, USAGE, group_by="model")
    assert [each["num_model_requests"] for each in by_model] == [2, 1]


async def test_what_was_cut_or_never_reported_was_used_all_the_same(session: aiohttp.ClientSession) -> None:
    told = await chat(session)
    assert await chat(session, scenario="no-usage") is None
    (whole,) = await results(session, USAGE)
    assert whole["output_tokens"] == 2 * told["completion_tokens"]


async def test_embeddings_are_reported_apart(session: aiohttp.ClientSession) -> None:
    body = {"model": "text-embedding-3-small", "input": "Hello there."}
    async with session.post("/v1/embeddings", json=body) as answer:
        used = (await answer.json())["usage"]["prompt_tokens"]
    assert await results(session, USAGE) == []
    (found,) = await results(session, "/v1/organization/usage/embeddings", group_by="model")
    assert (found["input_tokens"], found["num_model_requests"]) == (used, 1)


async def test_a_days_cost_is_at_the_providers_prices(session: aiohttp.ClientSession) -> None:
    used = await chat(session)
    (found,) = await results(session, COSTS)
    dollars = (used["prompt_tokens"] * 2.50 + used["completion_tokens"] * 10) / 1_000_000
    assert found["amount"] == {"value": pytest.approx(dollars), "currency": "usd"}


async def test_a_call_belongs_to_the_day_it_ended_and_a_cleared_log_forgets_no_usage(
    session: aiohttp.ClientSession, clock: Clock
) -> None:
    await chat(session)
    clock.now_s += DAY_S
    (await session.delete("/sandbox/log")).release()
    assert await results(session, USAGE, start_s=NOON_S + DAY_S) == []
    assert len(await results(session, USAGE)) == 1


async def test_pages_follow_each_other_to_the_end_without_a_gap(session: aiohttp.ClientSession) -> None:
    asked = {"start_time": str(NOON_S - 4 * DAY_S), "end_time": str(NOON_S), "limit": "2"}
    starts = []
    while True:
        async with session.get(COSTS, params=asked, headers=ADMIN) as answer:
            page = await answer.json()
        starts += [bucket["start_time"] for bucket in page["data"]]
        assert page["has_more"] is (page["next_page"] is not None)
        if not page["has_more"]:
            break
        asked["page"] = page["next_page"]
    assert starts == [NOON_S - DAY_S // 2 - DAY_S * back for back in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (USAGE, {"start_time": "yesterday"}),
        (USAGE, {"start_time": "-1"}),
        (USAGE, {"limit": "32"}),
        (USAGE, {"bucket_width": "1h"}),
        (USAGE, {"group_by": "user_id"}),
        (USAGE, {"models": "gpt-4o"}),
        (COSTS, {"group_by": "model"}),
        (COSTS, {"limit": "0"}),
        (COSTS, {"page": "page_x"}),
    ],
)
async def test_what_is_wrong_or_not_simulated_is_refused_by_name(
    session: aiohttp.ClientSession, path: str, wrong: dict[str, str]
) -> None:
    async with session.get(path, params={"start_time": str(NOON_S)} | wrong, headers=ADMIN) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] in wrong


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-other"}])
async def test_only_the_admin_key_reads_them(session: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    async with session.get(COSTS, params={"start_time": str(NOON_S)}, headers=headers) as answer:
        assert answer.status == 401


async def test_openais_own_sdk_reads_usage_and_costs(upstream: SimulatedOpenAI, session: aiohttp.ClientSession) -> None:
    used = await chat(session)
    async with AsyncOpenAI(api_key="sk-none", admin_api_key="sk-admin", base_url=upstream.base_url) as client:
        reader = client.admin.organization.usage
        usage = await reader.completions(start_time=NOON_S, bucket_width="1d", group_by=["model"], limit=31)
        costs = await reader.costs(start_time=NOON_S, limit=180)
    (found,) = usage.data[0].results
    assert found.object == "organization.usage.completions.result"
    assert (found.input_tokens, found.output_tokens) == (used["prompt_tokens"], used["completion_tokens"])
    (cost,) = costs.data[0].results
    assert cost.object == "organization.costs.result"
    assert cost.amount is not None
    assert cost.amount.currency == "usd"
