"""Caps by the operations API: the same changes and refusals as on the command line."""

from typing import Any
from urllib.parse import quote

import pytest

from gateway.core.access.key_terms import KeyTerms
from gateway.core.access.roles import Role
from gateway.core.guard.caps import UNLIMITED, Caps, Excess
from gateway.core.money import UCR_PER_CREDIT
from tests.proxy.stack import Stack, until
from tests.proxy.test_breakers import code_of
from tests.web.operators import Desk


def asked(**caps: Any) -> dict[str, Any]:
    return {"caps": caps, "reason": "ticket 12"}


async def test_a_cap_that_is_set_binds_the_next_calls_and_is_signed(desk: Desk, stack: Stack) -> None:
    status, made = await desk.ask("POST", "/ops/caps/main", asked(models_denied=["gpt-4o*"], day="2.5"))
    account = stack.account.id
    told = {"level": "account", "id": account, "name": "main"}
    assert (status, made) == (200, told | {"caps": {"day": "2.5", "models_denied": ["gpt-4o*"]}})
    async with stack.client() as client:
        await stack.gateway.caps.directory.refresh_step()
        assert await code_of(client) == "model_not_allowed"
    (line,) = await desk.log()
    assert (line["author"], line["action"], line["subject"]) == ("ann", "caps.set", f"account:{account}")
    assert (line["reason"], line["after"]) == ("ticket 12", {"day": 2_500_000, "models_denied": ["gpt-4o*"]})


async def test_what_is_not_named_stays_null_inherits_and_unlimited_lifts(desk: Desk, stack: Stack) -> None:
    everything = {
        "request": "1",
        "day": "5",
        "month": "100",
        "output_tokens": 10,
        "requests_a_minute": 20,
        "tokens_a_minute": 30,
        "concurrent": 0,
        "models_allowed": ["o3", "gpt-*"],
        "models_denied": ["o1"],
        "on_output": "refuse",
        "on_unaffordable": "slice",
    }
    _, made = await desk.ask("POST", "/ops/caps/main", asked(**everything))
    assert made["caps"] == everything
    changed = asked(day=None, month="unlimited", concurrent="unlimited", models_denied=None, on_unaffordable=None)
    _, made = await desk.ask("POST", "/ops/caps/main", changed)
    left = {name: value for name, value in everything.items() if changed["caps"].get(name, "") is not None}
    assert made["caps"] == left | {"month": "unlimited", "concurrent": "unlimited"}
    standing = (await stack.stores.caps.standing(await stack.stores.caps.find("main")))[0]
    assert standing.caps == Caps(
        request=UCR_PER_CREDIT,
        month=UNLIMITED,
        output_tokens=10,
        requests_a_minute=20,
        tokens_a_minute=30,
        concurrent=UNLIMITED,
        models_allowed=("o3", "gpt-*"),
        on_output=Excess.REFUSE,
    )


async def test_an_accounts_caps_are_shown_with_its_plans_its_members_and_what_is_used(desk: Desk, stack: Stack) -> None:
    member = await stack.stores.members.create(stack.account.id, "ada@example.com", Role.MEMBER)
    _, key_id = await stack.stores.keys.issue(stack.account.id, KeyTerms(name="phone"))
    for who, caps in (
        ("plan:default", asked(month="9")),
        (stack.account.id, asked(day="5")),
        ("ADA@example.com", asked(requests_a_minute=3)),
        (key_id, asked(concurrent=2)),
    ):
        assert (await desk.ask("POST", f"/ops/caps/{quote(who)}", caps))[0] == 200
    status, shown = await desk.ask("GET", "/ops/caps/main", by="eve")
    assert status == 200
    of_account, of_member, of_key = shown["data"]
    assert (of_account["caps"], of_account["used"]["day"]) == ({"day": "5", "month": "9"}, "0")
    assert of_account["resets_at"]["day"].endswith("T00:00:00+00:00")
    assert (of_member["level"], of_member["id"], of_member["caps"]) == ("member", member.id, {"requests_a_minute": 3})
    assert (of_key["level"], of_key["name"], of_key["caps"]) == ("key", "phone", {"concurrent": 2})
    assert (await desk.ask("GET", f"/ops/caps/{key_id}", by="eve"))[1]["data"] == [of_key]


async def test_a_name_with_a_slash_is_found(desk: Desk, stack: Stack) -> None:
    await stack.stores.accounts.create("acme/eu 100%")
    _, made = await desk.ask("POST", f"/ops/caps/{quote('acme/eu 100%', safe='')}", asked(concurrent=1))
    assert made["name"] == "acme/eu 100%"


@pytest.mark.parametrize("who", ["nobody", "plan:defualt", "plan:", "a%00b", "2a08ac46-bcbf-4464-8f27-edd1fca6a416"])
async def test_whoever_is_not_there_is_not_found(desk: Desk, who: str) -> None:
    for method, by, body in (("GET", "eve", None), ("POST", "ann", asked(day="1"))):
        status, told = await desk.ask(method, f"/ops/caps/{who}", body, by=by)
        assert (status, told["error"]["code"]) == (404, "not_found")
    assert await desk.log() == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (asked(), "which cap"),
        (asked(day="-1"), "null to inherit"),
        (asked(day="much"), "'unlimited'"),
        (asked(day=5), "caps.day"),
        (asked(concurrent=-1), "whole number"),
        (asked(concurrent=2**53), "too large"),
        (asked(concurrent=10**400), "whole number"),
        (asked(concurrent=1.5), "caps.concurrent"),
        (asked(output_tokens=0), "from 1 up"),
        (asked(output_tokens="many"), "caps.output_tokens"),
        (asked(models_allowed=[]), "caps.models_allowed"),
        (asked(models_allowed=[""]), "no name of a model"),
        (asked(models_denied=["a\0b"]), "no name of a model"),
        (asked(models_denied=["x"] * 101), "At most 100"),
        (asked(on_output="slice"), "caps.on_output"),
        (asked(rpm=1), "rpm"),
        ({"caps": {"day": "1"}}, "reason"),
        (asked(day="1") | {"reason": " "}, "reason"),
    ],
)
async def test_what_cannot_be_meant_is_refused(desk: Desk, body: Any, why: str) -> None:
    status, told = await desk.ask("POST", "/ops/caps/main", body)
    assert (status, why in told["error"]["message"]) == (400, True), told
    assert await desk.log() == []


async def test_what_happens_beyond_a_cap_is_no_keys_to_say(desk: Desk, stack: Stack) -> None:
    _, key_id = await stack.stores.keys.issue(stack.account.id)
    status, told = await desk.ask("POST", f"/ops/caps/{key_id}", asked(on_output="clamp"))
    assert (status, "an account's or a plan's" in told["error"]["message"]) == (400, True)


async def test_a_name_of_two_is_refused_with_their_ids(desk: Desk, stack: Stack) -> None:
    member = await stack.stores.members.create(stack.account.id, "ada@example.com", Role.MEMBER)
    await stack.stores.accounts.create("ada@example.com")
    status, told = await desk.ask("POST", "/ops/caps/ada@example.com", asked(day="1"))
    assert (status, member.id in told["error"]["message"]) == (400, True)


async def test_caps_are_set_while_redis_is_away_and_only_what_is_used_cannot_be_told(desk: Desk, stack: Stack) -> None:
    await stack.stores.link.close()
    assert (await desk.ask("POST", "/ops/caps/main", asked(day="1")))[1]["caps"] == {"day": "1"}
    status, told = await desk.ask("GET", "/ops/caps/main", by="eve")
    assert (status, told["error"]["code"]) == (503, "billing_unavailable")
    await stack.stores.link.open()
    await until(lambda: stack.stores.link.available)
    assert (await desk.ask("GET", "/ops/caps/main", by="eve"))[1]["data"][0]["caps"] == {"day": "1"}
