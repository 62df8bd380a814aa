"""Brownouts and breakers by the operations API."""

import asyncio

import pytest

from gateway.core.guard.breaker import State
from gateway.sandbox.openai import SimulatedOpenAI
from tests.patience import PATIENCE_S
from tests.proxy.stack import Stack, until
from tests.proxy.test_breakers import MODEL, behave, code_of
from tests.web.operators import Desk

ASKED = {"models": MODEL, "level": 4, "for_s": 60, "reason": "incident 12"}


async def test_a_brownout_is_set_seen_and_ended_and_signed_with_the_keys_name(desk: Desk, stack: Stack) -> None:
    status, made = await desk.ask("POST", "/ops/brownouts", ASKED)
    assert (status, made["level"], made["author"]) == (200, 4, "ann")
    async with stack.client() as client:
        await until(lambda: stack.gateway.controls.snapshot().brownouts is not None)
        assert await code_of(client) == "model_browned_out"
    _, shown = await desk.ask("GET", "/ops/brownouts", by="eve")
    assert shown["data"] == [made]
    cleared = {"models": MODEL, "reason": "over"}
    assert (await desk.ask("POST", "/ops/brownouts/clear", cleared, by="bob"))[1] == made
    assert [(line["author"], line["action"]) for line in await desk.log()] == [
        ("bob", "brownout.clear"),
        ("ann", "brownout.set"),
    ]


async def test_a_level_that_reroutes_takes_the_cheaper_model_of_the_configuration(desk: Desk) -> None:
    _, made = await desk.ask("POST", "/ops/brownouts", ASKED | {"models": "gpt-4o", "level": 3})
    assert (made["reroute_to"], made["shed_percent"], made["output_tokens"]) == ("gpt-4o-mini", 50, 1000)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"level": 0}, "Level 0"),
        ({"level": 5}, "1 to 4"),
        ({"models": "gpt-nine"}, "no model"),
        ({"level": 3, "reroute_to": "gpt-nine"}, "no model"),
        ({"for_s": 0}, "31 days"),
        ({"reason": " "}, "reason"),
        ({"frobnicate": 1}, "frobnicate"),
    ],
)
async def test_what_cannot_be_meant_is_refused(desk: Desk, change: dict[str, object], why: str) -> None:
    status, refusal = await desk.ask("POST", "/ops/brownouts", ASKED | change)
    assert status == 400
    assert why in refusal["error"]["message"]


async def test_a_viewer_sees_and_changes_nothing(desk: Desk) -> None:
    assert (await desk.ask("POST", "/ops/brownouts", ASKED, by="eve"))[0] == 403
    assert (await desk.ask("POST", "/ops/brownouts/clear", {"models": MODEL, "reason": "x"}, by="eve"))[0] == 403
    assert (await desk.ask("GET", "/ops/breakers", by="eve")) == (200, {"data": []})


async def test_a_breaker_that_opened_is_shown(desk: Desk, stack: Stack, openai: SimulatedOpenAI) -> None:
    await behave(openai, "status=500")
    async with stack.client() as client:
        while await code_of(client) != "model_unavailable":
            pass
    async with asyncio.timeout(PATIENCE_S):
        while not (shown := await desk.ask("GET", "/ops/breakers", by="eve"))[1]["data"]:
            await asyncio.sleep(0)
    (breaker,) = shown[1]["data"]
    assert breaker["breaker"] == MODEL
    assert breaker["state"] in (State.OPEN, State.HALF_OPEN)
    assert breaker["cause"] in ("consecutive_failures", "probe_failed")
