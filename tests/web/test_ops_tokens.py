"""The operations API by tokens of the operators' identity provider: name and role are the token's, and it ends soon."""

import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jwt
import pytest

from gateway.adapters.postgres.audit_log import Signature
from gateway.config import ConfigError, load
from gateway.core.access.operators import Role
from gateway.sandbox.openai import SimulatedOpenAI
from tests.provider import AUDIENCE, ISSUER, RSA_KEY, Provider, provider
from tests.proxy.stack import Running, Stack
from tests.web.operators import operating

OPS = "tollgate-ops"
FLAG = {"name": "maintenance", "value": True, "reason": "database upgrade"}


class Desk:
    def __init__(self, stack: Stack, serving: Provider, url: str) -> None:
        self.stack = stack
        self.provider = serving
        self._url = url

    async def ask(self, method: str, path: str, bearer: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {bearer}"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{self._url}{path}", json=body, headers=headers) as reply,
        ):
            return reply.status, await reply.json()


@pytest.fixture
async def desk(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Desk]:
    async with provider() as serving:
        given = {"issuer": ISSUER, "audience": OPS, "jwks_url": serving.url, "lifetime_s_max": 3600}
        async with running(openai.url, operator_identity=given) as stack, operating(stack) as url:
            yield Desk(stack, serving, url)


def token(*, key: Any = RSA_KEY, lives_s: float = 600, **changed: Any) -> str:
    good = {
        "iss": ISSUER,
        "aud": OPS,
        "sub": "u-1",
        "email": "ann@tollgate.example",
        "roles": ["staff", "tollgate-operator"],
        "exp": int(time.time() + lives_s),
    }
    claims = {name: value for name, value in (good | changed).items() if value is not None}
    return jwt.encode(claims, key, "RS256", headers={"kid": "rsa"})


async def test_what_is_done_with_a_token_is_signed_with_its_name(desk: Desk) -> None:
    assert await desk.ask("GET", "/ops/me", token()) == (200, {"name": "ann@tollgate.example", "role": "operator"})
    assert (await desk.ask("POST", "/ops/flags", token(), FLAG))[0] == 200
    _, page = await desk.ask("GET", "/ops/audit-log?subject=maintenance", token())
    assert [(line["author"], line["action"]) for line in page["data"]] == [("ann@tollgate.example", "flag.set")]


@pytest.mark.parametrize(
    ("roles", "status"),
    [("tollgate-viewer", 403), (["tollgate-viewer", "tollgate-admin"], 200), ("tollgate-operator", 403)],
)
async def test_of_a_tokens_roles_the_highest_counts_and_no_more(desk: Desk, roles: Any, status: int) -> None:
    assert (await desk.ask("GET", "/ops/keys", token(roles=roles)))[0] == status


@pytest.mark.parametrize(
    "changed",
    [
        {"lives_s": -120},
        {"lives_s": 3600 + 300},
        {"aud": AUDIENCE},
        {"iss": "https://evil.example"},
        {"roles": None},
        {"roles": ["admin", "operator"]},
        {"roles": {"tollgate-admin": True}},
        {"email": None},
        {"email": "a\nb"},
        {"email_verified": False},
    ],
    ids=str,
)
async def test_whatever_is_wrong_with_a_token_is_told_what_a_bad_key_is(desk: Desk, changed: dict[str, Any]) -> None:
    assert await desk.ask("GET", "/ops/me", token(**changed)) == await desk.ask("GET", "/ops/me", "nonsense")


async def test_keys_work_while_the_provider_is_away(desk: Desk) -> None:
    desk.provider.status = 503
    secret, _ = await desk.stack.stores.ops_keys.create("bob", Role.VIEWER, Signature("boss", "new here"))
    assert (await desk.ask("GET", "/ops/me", token()))[0] == 503
    assert (await desk.ask("GET", "/ops/me", secret))[0] == 200


async def test_nobody_approves_a_correction_of_their_own_by_token_and_by_key(desk: Desk) -> None:
    """Who has both has them under one name, in whatever letters."""
    path = "/ops/corrections/0197a3c2-0000-7000-8000-000000000001"
    asked = {"account": desk.stack.account.id, "kind": "adjustment", "credits": "90000", "reason": "outage"}
    _, proposed = await desk.ask("PUT", path, token(), asked)
    assert proposed["state"] == "proposed"
    key = await desk.stack.stores.ops_keys.create("Ann@Tollgate.example", Role.OPERATOR, Signature("boss", "new"))
    assert (await desk.ask("POST", f"{path}/approve", key[0], {"reason": "right"}))[0] == 400


def test_a_provider_of_customers_makes_no_operators() -> None:
    same = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": "https://login.example/jwks"}
    with pytest.raises(ConfigError, match="another issuer or audience"):
        load(None, identity=same, operator_identity=same)
