"""The operations API: who may do what, and that every change is signed with its key's name and its reason."""

import asyncio
import base64
from typing import Any
from uuid import uuid4

import pytest

from gateway.app.ops import operations_of
from gateway.core.access.operators import Role
from tests.web.operators import Desk

FLAG = {"name": "maintenance", "value": True, "reason": "database upgrade"}
UNKNOWN = "0197a3c2-0000-7000-8000-000000000001"


@pytest.mark.parametrize("by", ["", "nonsense", "sk-ops-" + "A" * 43])
async def test_whatever_is_wrong_with_a_key_nothing_is_told(desk: Desk, by: str) -> None:
    paths = [(each.method, each.path) for each in operations_of(desk.stack.config, desk.stack.stores)]
    told = {repr(await desk.ask(method, path.replace("{", "").replace("}", ""), {}, by=by)) for method, path in paths}
    assert len(told) == 1
    assert "Incorrect operator's key" in told.pop()


async def test_a_customers_key_is_no_operators(desk: Desk) -> None:
    assert (await desk.ask("GET", "/ops/me", by=desk.stack.key))[0] == 401


@pytest.mark.parametrize(
    ("method", "path", "needs"),
    [
        ("GET", "/ops/flags", Role.VIEWER),
        ("GET", "/ops/audit-log", Role.VIEWER),
        ("GET", "/ops/accounts/top", Role.VIEWER),
        ("GET", "/ops/reviews", Role.VIEWER),
        ("GET", "/ops/corrections", Role.VIEWER),
        ("POST", "/ops/flags", Role.OPERATOR),
        ("POST", "/ops/flags/clear", Role.OPERATOR),
        ("POST", f"/ops/accounts/{UNKNOWN}/status", Role.OPERATOR),
        ("POST", f"/ops/accounts/{UNKNOWN}/terms", Role.OPERATOR),
        ("GET", "/ops/caps/main", Role.VIEWER),
        ("POST", "/ops/caps/main", Role.OPERATOR),
        ("POST", "/ops/reviews/rev_1/release", Role.OPERATOR),
        ("PUT", f"/ops/corrections/{UNKNOWN}", Role.OPERATOR),
        ("POST", f"/ops/corrections/{UNKNOWN}/approve", Role.OPERATOR),
        ("POST", f"/ops/corrections/{UNKNOWN}/reject", Role.OPERATOR),
        ("GET", "/ops/keys", Role.ADMIN),
        ("POST", "/ops/keys", Role.ADMIN),
        ("POST", "/ops/keys/ops_1/revoke", Role.ADMIN),
    ],
)
async def test_a_role_does_what_it_may_and_no_more(desk: Desk, method: str, path: str, needs: Role) -> None:
    for by, role in (("eve", Role.VIEWER), ("ann", Role.OPERATOR), ("boss", Role.ADMIN)):
        status, told = await desk.ask(method, path, {}, by=by)
        assert (status == 403) is not role.may(needs), told
        assert status != 403 or told["error"]["code"] == "role_not_allowed"
        assert status != 500


async def test_a_flag_is_set_and_cleared_and_callers_are_told(desk: Desk) -> None:
    status, flag = await desk.ask("POST", "/ops/flags", FLAG | {"for_s": 1800, "percent": 100})
    assert (status, flag["author"], flag["percent"], flag["default"]) == (200, "ann", 100, False)
    _, listed = await desk.ask("GET", "/ops/flags", by="eve")
    assert listed["data"] == [flag]
    status, _ = await desk.ask("POST", "/ops/flags/clear", {"name": "maintenance", "reason": "done"}, by="bob")
    assert status == 200
    assert [(line["author"], line["action"], line["reason"]) for line in await desk.log()] == [
        ("bob", "flag.clear", "done"),
        ("ann", "flag.set", "database upgrade"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        FLAG | {"reason": ""},
        FLAG | {"name": "x"},
        FLAG | {"percent": 101},
        FLAG | {"for_s": -1},
        FLAG | {"x": 1},
        [],
    ],
)
async def test_a_change_that_cannot_be_meant_is_refused(desk: Desk, body: Any) -> None:
    status, told = await desk.ask("POST", "/ops/flags", body)
    assert (status, told["error"]["code"]) == (400, "invalid_request")
    assert await desk.log() == []


async def test_an_account_is_suspended_and_served_again(desk: Desk) -> None:
    account = desk.stack.account.id
    for status in ("suspended", "active"):
        _, told = await desk.ask("POST", f"/ops/accounts/{account}/status", {"status": status, "reason": "asked to"})
        assert told["status"] == status
    assert [(line["before"], line["after"]) for line in await desk.log()] == [
        ({"status": "suspended"}, {"status": "active"}),
        ({"status": "active"}, {"status": "suspended"}),
    ]


async def test_an_accounts_terms_are_changed_and_signed_and_what_is_not_given_stays(desk: Desk) -> None:
    path = f"/ops/accounts/{desk.stack.account.id}"
    _, before = await desk.ask("GET", path, by="eve")
    asked = {"time_zone": "Europe/Berlin", "priority": "low", "reason": "they moved"}
    status, told = await desk.ask("POST", f"{path}/terms", asked)
    assert (status, told) == (200, before | {"time_zone": "Europe/Berlin", "priority": "low"})
    _, told = await desk.ask("POST", "/ops/accounts/main/terms", {"on_disconnect": "cancel", "reason": "asked to"})
    assert told == before | {"time_zone": "Europe/Berlin", "priority": "low", "on_disconnect": "cancel"}
    last, first = await desk.log()
    assert (last["author"], last["action"], last["after"]) == ("ann", "account.set", {"on_disconnect": "cancel"})
    assert (first["reason"], first["before"]) == ("they moved", {"priority": "normal", "time_zone": "UTC"})


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ({}, "Nothing to set"),
        ({"plan": None}, "Nothing to set"),
        ({"plan": "defualt"}, "choose one of: default"),
        ({"time_zone": "Mars"}, "Europe/Berlin"),
        ({"time_zone": "\0"}, "Europe/Berlin"),
        ({"time_zone": ""}, "Europe/Berlin"),
        ({"priority": "high"}, "$.priority"),
        ({"on_disconnect": "wait"}, "$.on_disconnect"),
        ({"status": "active"}, "status"),
        ({"plan": "default", "reason": " "}, "reason"),
    ],
)
async def test_terms_that_cannot_be_meant_are_refused(desk: Desk, terms: dict[str, Any], why: str) -> None:
    status, told = await desk.ask("POST", "/ops/accounts/main/terms", {"reason": "x"} | terms)
    assert (status, why in told["error"]["message"]) == (400, True), told
    assert await desk.log() == []


async def test_a_large_correction_takes_two_keys_of_two_people(desk: Desk) -> None:
    path = f"/ops/corrections/{uuid4()}"
    asked = {"account": desk.stack.account.id, "kind": "adjustment", "credits": "50001", "reason": "an outage"}
    _, proposed = await desk.ask("PUT", path, asked)
    assert proposed["state"] == "proposed"
    status, told = await desk.ask("POST", f"{path}/approve", {"reason": "fine"})
    assert (status, "second person" in told["error"]["message"]) == (400, True)
    _, posted = await desk.ask("POST", f"{path}/approve", {"reason": "fine"}, by="bob")
    assert (posted["state"], posted["decided_by"]) == ("posted", "bob")


async def test_a_correction_asked_for_again_is_posted_once(desk: Desk) -> None:
    path, account = f"/ops/corrections/{uuid4()}", desk.stack.account.id
    asked = {"account": account, "kind": "adjustment", "credits": "10", "reason": "an outage"}
    before = (await desk.stack.stores.accounts.balance(account)).total
    told = await asyncio.gather(*(desk.ask("PUT", path, asked) for _ in range(5)))
    assert {status for status, _ in told} == {200}
    assert (await desk.stack.stores.accounts.balance(account)).total == before + 10_000_000
    status, other = await desk.ask("PUT", path, asked | {"credits": "11"})
    assert (status, "another correction" in other["error"]["message"]) == (400, True)


async def test_keys_are_made_by_admins_and_revoked_at_once(desk: Desk) -> None:
    status, made = await desk.ask("POST", "/ops/keys", {"name": "zoe", "role": "viewer", "reason": "x"}, by="boss")
    assert status == 201
    assert (await desk.ask("GET", "/ops/me", by=made["key"]))[1] == {"name": "zoe", "role": "viewer"}
    await desk.ask("POST", f"/ops/keys/{made['id']}/revoke", {"reason": "left"}, by="boss")
    assert (await desk.ask("GET", "/ops/me", by=made["key"]))[0] == 401


async def test_the_audit_log_is_read_in_pages(desk: Desk) -> None:
    for number in range(5):
        await desk.ask("POST", "/ops/flags", FLAG | {"percent": number})
    lines: list[Any] = []
    query: str | None = "limit=2&subject=maintenance"
    while query:
        _, page = await desk.ask("GET", f"/ops/audit-log?{query}", by="eve")
        lines += page["data"]
        query = f"limit=2&subject=maintenance&cursor={page['nextCursor']}" if page["nextCursor"] else None
    assert [line["after"]["scope"]["percent"] for line in lines] == [4, 3, 2, 1, 0]
    for cursor in ("x", base64.urlsafe_b64encode(b"%d" % 2**70).decode(), base64.urlsafe_b64encode(b"-1").decode()):
        assert (await desk.ask("GET", f"/ops/audit-log?cursor={cursor}", by="eve"))[0] == 400


async def test_the_daily_review_lists_who_spends_most(desk: Desk) -> None:
    assert await desk.ask("GET", "/ops/accounts/top?window=24h", by="eve") == (200, {"data": []})
    assert (await desk.ask("GET", "/ops/accounts/top?window=soon", by="eve"))[0] == 400


async def test_an_account_that_is_not_there_is_not_found(desk: Desk) -> None:
    for path in ("/ops/accounts/nobody", "/ops/accounts/2a08ac46-bcbf-4464-8f27-edd1fca6a416"):
        status, told = await desk.ask("GET", path)
        assert (status, told["error"]["code"]) == (404, "not_found")


async def test_the_document_has_every_path(desk: Desk) -> None:
    status, document = await desk.ask("GET", "/ops/openapi.json")
    assert status == 200
    assert set(document["paths"]) == {each.path for each in operations_of(desk.stack.config, desk.stack.stores)}


async def test_an_unknown_path_and_method_have_the_openai_shape(desk: Desk) -> None:
    told = (await desk.ask("GET", "/ops/nothing"))[1]["error"]
    assert (told["code"], "/ops/openapi.json" in told["message"]) == ("not_found", True)
    assert (await desk.ask("DELETE", "/ops/flags"))[1]["error"]["code"] == "method_not_allowed"
