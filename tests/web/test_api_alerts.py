"""`/api/alerts`: an account says itself when it is warned, if the caller may manage it."""

from typing import Any

import pytest

from gateway.core.access.key_terms import KeyTerms
from gateway.core.access.roles import Role
from tests.proxy.stack import Stack
from tests.web.test_api_callers import key_of, managing_key, told


async def test_what_is_set_is_what_is_shown(stack: Stack) -> None:
    manager = await managing_key(stack)
    assert await told(stack, manager, "GET", "/api/alerts") == (200, {"below": "0", "days": 3})

    wished = {"below": "12.5", "days": 7}
    assert await told(stack, manager, "PUT", "/api/alerts", wished) == (200, wished)
    assert await told(stack, stack.key, "GET", "/api/alerts") == (200, wished)


@pytest.mark.parametrize(
    "body",
    [
        {"below": "-1", "days": 0},
        {"below": "x", "days": 0},
        {"below": "1e99", "days": 0},
        {"below": "0.0000001", "days": 0},
        {"below": 5, "days": 0},
        {"below": "5", "days": 366},
        {"below": "5", "days": -1},
        {"below": "5"},
        {"below": "5", "days": 1, "more": 1},
        [],
    ],
)
async def test_what_cannot_be_wished_is_refused(stack: Stack, body: Any) -> None:
    status, answer = await told(stack, await managing_key(stack), "PUT", "/api/alerts", body)
    assert (status, answer["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("role", list(Role))
async def test_a_member_who_is_no_admin_cannot_turn_the_accounts_warnings_off(stack: Stack, role: Role) -> None:
    key, _ = await key_of(stack, role)
    status, _ = await told(stack, key, "PUT", "/api/alerts", {"below": "0", "days": 0})
    assert status == (200 if role in (Role.OWNER, Role.ADMIN) else 403)


async def test_only_who_manages_an_account_changes_it(stack: Stack) -> None:
    reader, _ = await stack.stores.keys.issue(stack.account.id, KeyTerms(scopes=frozenset({"read"})))
    assert (await told(stack, reader, "PUT", "/api/alerts", {"below": "1", "days": 1}))[0] == 403
    assert (await told(stack, "sk-tg-wrong", "GET", "/api/alerts"))[0] == 401
