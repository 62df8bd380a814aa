"""Keys and members over HTTP: roles, secrets that are shown once, and requests that come twice."""

import asyncio
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from gateway.core.access.key_terms import KeyTerms
from gateway.core.access.roles import Role
from gateway.sandbox.openai import SimulatedOpenAI
from tests.books import OPERATOR
from tests.patience import PATIENCE_S
from tests.proxy.stack import CREDITS, Running, Stack
from tests.proxy.wire import ask, request

ALL = frozenset({"calls", "read", "buy", "manage"})


async def told(
    stack: Stack, key: str, method: str, path: str, body: Any = None, idempotency_key: str = ""
) -> tuple[int, dict[str, Any]]:
    fields = [(b"Idempotency-Key", idempotency_key.encode())] if idempotency_key else []
    payload = b"" if body is None else msgspec.json.encode(body)
    answer = await ask(stack.address, request(path, key, payload, fields, method=method))
    return answer.status, msgspec.json.decode(answer.body)


async def key_of(stack: Stack, role: Role, email: str = "") -> tuple[str, str]:
    """(secret, member id) of a new member's key that may do everything."""
    member = await stack.stores.members.create(stack.account.id, email or f"{role}@example.com", role)
    secret, _ = await stack.stores.keys.issue(stack.account.id, KeyTerms(member_id=member.id, scopes=ALL))
    return secret, member.id


async def managing_key(stack: Stack) -> str:
    secret, _ = await stack.stores.keys.issue(stack.account.id, KeyTerms(scopes=ALL))
    return secret


async def test_the_profile_says_who_calls_and_as_what(stack: Stack) -> None:
    owner, member_id = await key_of(stack, Role.OWNER)
    status, profile = await told(stack, owner, "GET", "/api/users/profile")
    assert (status, profile["role"]) == (200, "owner")
    assert profile["account"] == {
        "id": stack.account.id, "name": "main", "status": "active", "plan": "default", "timeZone": "UTC",
    }  # fmt: skip
    assert (profile["member"]["id"], profile["member"]["email"]) == (member_id, "owner@example.com")
    assert profile["key"]["prefix"] == owner[:12]
    assert owner not in str(profile)
    _, plain = await told(stack, stack.key, "GET", "/api/users/profile")
    assert (plain["member"], plain["role"]) == (None, "viewer")


async def test_the_balance_is_told_in_credits_and_in_millionths(stack: Stack) -> None:
    status, balance = await told(stack, stack.key, "GET", "/api/balance")
    all_of_it = {"credits": str(CREDITS), "ucr": CREDITS * 10**6}
    nothing = {"credits": "0", "ucr": 0}
    assert status == 200
    assert balance == {
        "balance": all_of_it, "held": nothing, "available": all_of_it, "promo": all_of_it, "paid": nothing,
        "debt": nothing,
    }  # fmt: skip


async def test_a_key_is_made_used_rotated_and_revoked(stack: Stack) -> None:
    manager = await managing_key(stack)
    asked = {"name": "ci", "scopes": ["calls", "read"], "models": ["gpt-4o*"], "networks": ["127.0.0.0/8"]}
    asked["priority"] = "low"
    status, made = await told(stack, manager, "POST", "/api/keys", asked)
    assert (status, made["name"], made["scopes"], made["memberId"]) == (201, "ci", ["calls", "read"], None)
    assert (await told(stack, made["secret"], "GET", "/api/balance"))[0] == 200
    status, rotated = await told(stack, manager, "POST", f"/api/keys/{made['id']}/rotate", {"overlapS": 60})
    assert (status, rotated["rotatedFrom"], rotated["models"]) == (201, made["id"], ["gpt-4o*"])
    assert (made["priority"], rotated["priority"]) == ("low", "low")
    for secret in (made["secret"], rotated["secret"]):
        assert (await told(stack, secret, "GET", "/api/balance"))[0] == 200
    status, revoked = await told(stack, manager, "DELETE", f"/api/keys/{made['id']}")
    assert (status, revoked["revokedAt"] is None) == (200, False)
    async with asyncio.timeout(PATIENCE_S):
        while (await told(stack, made["secret"], "GET", "/api/balance"))[0] != 401:
            await asyncio.sleep(0.05)
    _, listed = await told(stack, stack.key, "GET", "/api/keys")
    assert {"secret"} & set().union(*listed["data"]) == set()


async def test_lists_come_in_pages_that_show_each_once(stack: Stack) -> None:
    for number in range(4):
        await stack.stores.members.create(stack.account.id, f"{number}@example.com", Role.VIEWER)
        await stack.stores.keys.issue(stack.account.id, KeyTerms(name=str(number)))
    for path, count in (("/api/keys", 5), ("/api/members", 4)):
        seen: list[str] = []
        asked = f"{path}?limit=2"
        while asked:
            _, page = await told(stack, stack.key, "GET", asked)
            seen += [each["id"] for each in page["data"]]
            asked = f"{path}?limit=2&cursor={page['nextCursor']}" if page["nextCursor"] else ""
        assert len(seen) == len(set(seen)) == count


@pytest.mark.parametrize("query", [
        "cursor=", "cursor=x", "cursor=%00", "cursor=WzFd", "limit=0", "limit=x",
        "cursor=WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzE0OjAwIiwiYSJd",  # ["0001-01-01T00:00:00+14:00","a"]
        "cursor=WyIyMDI2LTAxLTAxVDAwOjAwOjAwIiwieCJd",  # ["2026-01-01T00:00:00","x"]: which zone's?
    ],
)  # fmt: skip
async def test_a_page_that_cannot_be_found_is_refused_by_name(stack: Stack, query: str) -> None:
    for path in ("/api/keys", "/api/members"):
        status, body = await told(stack, stack.key, "GET", f"{path}?{query}")
        assert (status, body["error"]["param"]) == (400, query.partition("=")[0])


async def test_a_cursor_that_was_made_up_is_refused(stack: Stack) -> None:
    cursor = "WyIyMDI2LTAxLTAxVDAwOjAwOjAwWiIsIngiXQ"  # ["2026-01-01T00:00:00Z","x"]
    status, _ = await told(stack, stack.key, "GET", f"/api/members?cursor={cursor}")
    assert status == 400


async def test_two_members_who_use_one_idempotency_key_are_told_so(stack: Stack) -> None:
    admin, member = [(await key_of(stack, role))[0] for role in (Role.ADMIN, Role.MEMBER)]
    assert (await told(stack, admin, "POST", "/api/keys", {"name": "mine"}, "k1"))[0] == 201
    status, body = await told(stack, member, "POST", "/api/keys", {"name": "mine"}, "k1")
    assert (status, body["error"]["code"]) == (409, "idempotency_mismatch")


async def test_who_is_below_an_admin_makes_no_key_that_reports_usage(stack: Stack) -> None:
    statuses = [
        (await told(stack, (await key_of(stack, role))[0], "POST", "/api/keys", {"scopes": ["report"]}))[0]
        for role in (Role.VIEWER, Role.MEMBER, Role.ADMIN, Role.OWNER)
    ]
    assert statuses == [403, 403, 201, 201]


async def test_a_request_that_comes_twice_makes_one_key_and_tells_its_secret_once(stack: Stack) -> None:
    manager = await managing_key(stack)
    answers = await asyncio.gather(
        *(told(stack, manager, "POST", "/api/keys", {"name": "one"}, "k1") for _ in range(5))
    )
    assert sorted(status for status, _ in answers) == [200] * 4 + [201]
    assert len({body["id"] for _, body in answers}) == 1
    assert sum("secret" in body for _, body in answers) == 1
    status, body = await told(stack, manager, "POST", "/api/keys", {"name": "two"}, "k1")
    assert (status, body["error"]["code"]) == (409, "idempotency_mismatch")
    key_id = answers[0][1]["id"]
    rotations = [await told(stack, manager, "POST", f"/api/keys/{key_id}/rotate", None, "k2") for _ in range(2)]
    assert [(status, "secret" in body) for status, body in rotations] == [(201, True), (200, False)]
    added = [
        await told(stack, manager, "POST", "/api/members", {"email": "a@example.com", "role": "viewer"}, "k3")
        for _ in range(2)
    ]
    assert [status for status, _ in added] == [201, 200]
    assert added[0][1] == added[1][1]


async def test_roles_bound_who_manages_what(stack: Stack) -> None:
    keys = {role: await key_of(stack, role) for role in Role}
    owner_id, viewer_id = keys[Role.OWNER][1], keys[Role.VIEWER][1]
    invited = {"email": "new@example.com", "role": "viewer"}
    expected = {Role.VIEWER: (403, 403, 403, 403), Role.MEMBER: (201, 403, 403, 403), Role.ADMIN: (201, 201, 403, 403)}
    for role, statuses in expected.items():
        secret = keys[role][0]
        got = (
            (await told(stack, secret, "POST", "/api/keys", {"name": "own"}))[0],
            (await told(stack, secret, "POST", "/api/keys", {"memberId": viewer_id}))[0],
            (await told(stack, secret, "POST", "/api/keys", {"memberId": owner_id}))[0],
            (await told(stack, secret, "PATCH", f"/api/members/{viewer_id}", {"role": "owner"}))[0],
        )
        assert (role, got) == (role, statuses)
        assert (await told(stack, secret, "GET", "/api/members"))[0] == 200
    assert (await told(stack, keys[Role.MEMBER][0], "POST", "/api/members", invited))[0] == 403
    assert (await told(stack, keys[Role.ADMIN][0], "POST", "/api/members", invited))[0] == 201
    assert (await told(stack, keys[Role.ADMIN][0], "DELETE", f"/api/members/{owner_id}"))[0] == 403
    assert (await told(stack, keys[Role.OWNER][0], "PATCH", f"/api/members/{viewer_id}", {"role": "owner"}))[0] == 200
    assert (await told(stack, keys[Role.OWNER][0], "DELETE", f"/api/members/{owner_id}"))[0] == 200


async def test_a_plain_key_reads_and_manages_nothing(stack: Stack) -> None:
    _, key_id = await stack.stores.keys.issue(stack.account.id, KeyTerms())
    for method, path in (
        ("POST", "/api/keys"), ("DELETE", f"/api/keys/{key_id}"), ("POST", f"/api/keys/{key_id}/rotate"),
        ("POST", "/api/members"), ("PATCH", "/api/members/x"), ("DELETE", "/api/members/x"),
    ):  # fmt: skip
        status, body = await told(stack, stack.key, method, path, {})
        assert (status, body["error"]["code"]) == (403, "scope_missing")
    calls_only, _ = await stack.stores.keys.issue(stack.account.id, KeyTerms(scopes=frozenset({"calls"})))
    assert (await told(stack, calls_only, "GET", "/api/balance"))[0] == 403


async def test_another_accounts_keys_and_members_are_not_there(stack: Stack) -> None:
    other = await stack.new_account("other")
    member = await stack.stores.members.create(other.id, "eve@example.com", Role.OWNER)
    _, key_id = await stack.stores.keys.issue(other.id, KeyTerms(member_id=member.id))
    manager = await managing_key(stack)
    asked = [
        ("DELETE", f"/api/keys/{key_id}", None), ("POST", f"/api/keys/{key_id}/rotate", None),
        ("DELETE", f"/api/members/{member.id}", None), ("PATCH", f"/api/members/{member.id}", {}),
        ("DELETE", "/api/keys/%00", None), ("PATCH", "/api/members/%00", {}),
        ("POST", "/api/keys", {"memberId": member.id}), ("POST", "/api/keys", {"memberId": "\0"}),
    ]  # fmt: skip
    assert [(await told(stack, manager, *each))[0] for each in asked] == [404] * len(asked)
    assert (await stack.stores.keys.find(key_id)).revoked_at is None


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/api/keys", [], None),
        ("/api/keys", {"nmae": "x"}, None),
        ("/api/keys", {"scopes": ["root"]}, None),
        ("/api/keys", {"scopes": []}, "scopes"),
        ("/api/keys", {"priority": "high"}, None),
        ("/api/keys", {"priority": None}, None),
        ("/api/keys", {"networks": ["home"]}, "networks"),
        ("/api/keys", {"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ("/api/keys", {"expiresAt": "9999-12-31T23:59:59-14:00"}, "expiresAt"),
        ("/api/keys", {"expiresAt": "2100-01-01T00:00:00"}, "expiresAt"),
        ("/api/members", {"email": "x", "role": "viewer"}, "email"),
        ("/api/members", {"email": "x@example.com", "role": "king"}, None),
    ],
)
async def test_what_cannot_be_made_is_refused_by_name(stack: Stack, path: str, body: Any, param: str | None) -> None:
    status, refused = await told(stack, await managing_key(stack), "POST", path, body)
    assert (status, refused["error"]["code"], refused["error"]["param"]) == (400, "invalid_request", param)


async def test_a_key_of_another_network_reads_nothing_here(stack: Stack) -> None:
    secret, _ = await stack.stores.keys.issue(stack.account.id, KeyTerms(networks=("192.0.2.0/24",)))
    for path in ("/api/balance", "/v1/models"):
        status, refused = await told(stack, secret, "GET", path)
        assert (status, refused["error"]["code"]) == (403, "address_not_allowed")


@pytest.mark.parametrize("path", ["/api/balance", "/v1/models"])
async def test_nobody_takes_away_what_a_proxy_says_of_where_they_come_from(
    running: Running, openai: SimulatedOpenAI, path: str
) -> None:
    async with running(openai.url, edge={"trusted_proxies": ["127.0.0.0/8"]}) as stack:
        secret, _ = await stack.stores.keys.issue(stack.account.id, KeyTerms(networks=("127.0.0.0/8",)))
        seen = (b"X-Forwarded-For", b"192.0.2.1")
        for fields in ([seen], [seen, (b"Connection", b"x-forwarded-for")]):
            got = await ask(stack.address, request(path, secret, fields=fields, method="GET"))
            assert (got.status, msgspec.json.decode(got.body)["error"]["code"]) == (403, "address_not_allowed")


async def test_a_suspended_account_reads_and_a_suspended_member_does_not(stack: Stack) -> None:
    owner, owner_id = await key_of(stack, Role.OWNER)
    viewer, viewer_id = await key_of(stack, Role.VIEWER)
    await told(stack, viewer, "GET", "/api/balance")
    status, _ = await told(stack, owner, "PATCH", f"/api/members/{viewer_id}", {"status": "suspended"})
    assert status == 200
    async with asyncio.timeout(PATIENCE_S):
        while (await told(stack, viewer, "GET", "/api/balance"))[0] != 403:
            await asyncio.sleep(0.05)
    await stack.stores.account_desk.set_status(stack.account.id, "suspended", OPERATOR)
    async with asyncio.timeout(PATIENCE_S):
        while (await told(stack, owner, "DELETE", f"/api/members/{quote(owner_id)}"))[0] != 403:
            await asyncio.sleep(0.05)
    assert (await told(stack, owner, "GET", "/api/balance"))[0] == 200


async def test_what_a_customer_changes_stands_in_the_audit_log_with_who_it_was(stack: Stack) -> None:
    owner, owner_id = await key_of(stack, Role.OWNER)
    _, added = await told(stack, owner, "POST", "/api/members", {"email": "bea@example.com", "role": "viewer"})
    await told(stack, owner, "PATCH", f"/api/members/{added['id']}", {"role": "admin"})
    await told(stack, owner, "DELETE", f"/api/members/{added['id']}")
    _, made = await told(stack, owner, "POST", "/api/keys", {"name": "ci"})
    await told(stack, owner, "POST", f"/api/keys/{made['id']}/rotate")
    await told(stack, owner, "DELETE", f"/api/keys/{made['id']}")
    lines = await stack.stores.audit_log.page(author=f"member {owner_id}", count=20)
    assert [line.action for line in reversed(lines)] == [
        "member.add", "member.set", "member.remove", "key.create", "key.rotate", "key.create", "key.revoke",
    ]  # fmt: skip
    assert {line.reason.partition(", ")[0] for line in lines} == {"asked over the API"}


async def test_a_key_that_is_nobodys_signs_as_itself(stack: Stack) -> None:
    await told(stack, await managing_key(stack), "POST", "/api/members", {"email": "b@example.com", "role": "viewer"})
    (line,) = [each for each in await stack.stores.audit_log.page(count=9) if each.action == "member.add"]
    assert line.author.startswith("key key_")
