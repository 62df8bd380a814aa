"""`tollgate books bill`: what OpenAI asks for, by its invoice or its costs API, corrects the costs that are booked."""

import asyncio
import json
from typing import Any

import aiohttp
import asyncpg
import pytest

from gateway.sandbox.openai import SandboxOpenAISettings, SimulatedOpenAI
from tests.commands import Done, tollgate

NOON_S = 1_795_262_400
DAY = "2026-11-21"
DAYS = ("--from", DAY, "--to", DAY)


class Desk:
    def __init__(self, stores: dict[str, str]) -> None:
        self._stores = stores

    async def run(self, *arguments: str, **environment: str) -> Done:
        """In a thread: the simulated OpenAI lives in this one's loop."""
        command = ("books", "bill", *DAYS, *arguments, "--json")
        return await asyncio.to_thread(tollgate, *command, env=self._stores | environment)


@pytest.fixture
async def desk(database_url: str, redis_url: str) -> Desk:
    """The books of a day that is booked, at a cost of nothing."""
    owner = await asyncpg.connect(database_url)
    await owner.execute(f"INSERT INTO cost_day (day) VALUES ('{DAY}')")
    await owner.close()
    return Desk({"TOLLGATE_DATABASE_URL": database_url, "TOLLGATE_REDIS_URL": redis_url})


def told(done: Done) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_without_an_invoice_openais_costs_are_booked_and_once(desk: Desk) -> None:
    settings = SandboxOpenAISettings(admin_key="sk-admin")
    async with (
        SimulatedOpenAI(settings, clock=lambda: NOON_S) as upstream,
        aiohttp.ClientSession(upstream.url) as session,
    ):
        chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there."}]}
        async with session.post("/v1/chat/completions", json=chat) as answer:
            used = (await answer.json())["usage"]
        keys = {"OPENAI_ADMIN_KEY": "sk-admin", "TOLLGATE_UPSTREAM_URL": upstream.url}
        first, again = told(await desk.run(**keys)), told(await desk.run(**keys))
    nano_dollars = used["prompt_tokens"] * 2500 + used["completion_tokens"] * 10_000
    assert first == {"amount_ucr": nano_dollars, "difference_ucr": nano_dollars}
    assert again == {"amount_ucr": nano_dollars, "difference_ucr": 0}


async def test_an_invoice_is_booked_by_its_number(desk: Desk) -> None:
    assert told(await desk.run("1.25", "--source", "INV-1")) == {
        "amount_ucr": 1_250_000_000,
        "difference_ucr": 1_250_000_000,
    }


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [(("1.25",), "--source"), (("--source", "INV-1"), "USD"), ((), "OPENAI_ADMIN_KEY")],
)
async def test_half_an_invoice_and_no_key_are_refused(desk: Desk, arguments: tuple[str, ...], remedy: str) -> None:
    done = await desk.run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert remedy in done.stderr
