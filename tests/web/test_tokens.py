"""Tokens of an identity provider at the public port: for /api, and for /v1 where the operator allows that."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import jwt
import msgspec
import pytest

from gateway.core.access.roles import Role
from gateway.sandbox.openai import SimulatedOpenAI
from tests.provider import AUDIENCE, ISSUER, RSA_KEY, provider
from tests.proxy.prices import CHAT, ask_of
from tests.proxy.stack import Running, Stack
from tests.proxy.wire import ask, request


@asynccontextmanager
async def with_tokens(running: Running, openai: SimulatedOpenAI, *scopes: str) -> AsyncIterator[tuple[Stack, str, str]]:
    """A stack that believes a provider, a token of a member of the main account, and the member's id."""
    async with provider() as serving:
        identity = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": serving.url, "scopes": scopes}
        async with running(openai.url, identity=identity) as stack:
            ada = await stack.stores.members.create(stack.account.id, "ada@example.com", Role.OWNER, subject="u-1")
            claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u-1", "account": "main", "exp": time.time() + 600}
            yield stack, jwt.encode(claims, RSA_KEY, "RS256", headers={"kid": "rsa"}), ada.id


async def test_a_token_manages_its_account_and_makes_no_calls_unless_allowed(
    running: Running, openai: SimulatedOpenAI
) -> None:
    async with with_tokens(running, openai, "read", "manage") as (stack, token, member_id):
        profile = await ask(stack.address, request("/api/users/profile", token, method="GET"))
        told = msgspec.json.decode(profile.body)
        assert (told["member"]["id"], told["role"], told["key"]) == (member_id, "owner", None)
        invited = await ask(stack.address, request("/api/members", token, b'{"email":"b@example.com","role":"admin"}'))
        assert invited.status == 201
        call = await ask(stack.address, request(CHAT, token, ask_of(CHAT)))
        unknown = await ask(stack.address, request(CHAT, "sk-tg-unknown", ask_of(CHAT)))
        assert (call.status, call.body) == (401, unknown.body)


async def test_a_call_with_a_token_is_the_members(running: Running, openai: SimulatedOpenAI) -> None:
    async with with_tokens(running, openai, "read", "calls") as (stack, token, member_id):
        for _ in range(2):  # by the provider's keys, and by the cache
            assert (await ask(stack.address, request(CHAT, token, ask_of(CHAT)))).status == 200
        await stack.lines()
        used = await ask(stack.address, request("/api/usage?groupBy=member", token, method="GET"))
        [line] = msgspec.json.decode(used.body)["data"]
        assert (line["group"], line["calls"]) == (member_id, 2)


@pytest.mark.parametrize("path", ["/api/balance", "/v1/models"])
async def test_a_token_that_is_not_believed_is_told_what_a_bad_key_is(
    running: Running, openai: SimulatedOpenAI, path: str
) -> None:
    async with with_tokens(running, openai, "read", "calls") as (stack, token, _):
        wrong = await ask(stack.address, request(path, token[:-8] + "AAAAAAAA", method="GET"))
        bad_key = await ask(stack.address, request(path, "sk-tg-unknown", method="GET"))
        assert (wrong.status, wrong.body) == (bad_key.status, bad_key.body)
        assert wrong.status == 401
