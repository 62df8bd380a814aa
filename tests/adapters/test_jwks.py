"""Tokens of an identity provider: believed by its keys only, and one refusal for whatever is wrong."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.adapters.jwks import ConfiguredKey, FetchedKeys, KeySource, UnusableKey, Verifier
from gateway.core.errors import IdentityUnavailable, Unauthenticated
from tests.patience import PATIENCE_S
from tests.provider import AUDIENCE, EC_KEY, ED_KEY, ISSUER, RSA_KEY, Provider, jwk, pem, provider


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u-1", "account": "acme", "iat": now, "exp": now + 600}
    return {name: value for name, value in (good | changed).items() if value is not None}


def token(key: Any = RSA_KEY, algorithm: str = "RS256", kid: str | None = "rsa", **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, algorithm, headers={} if kid is None else {"kid": kid})


def verifier(keys: KeySource) -> Verifier:
    return Verifier(keys, issuer=ISSUER, audience=AUDIENCE, leeway_s=5.0)


def fetched(serving: Provider, now: list[float] | None = None) -> FetchedKeys:
    clock = now if now is not None else [0.0]
    return FetchedKeys(serving.url, timeout_s=PATIENCE_S, age_s_max=300.0, refetch_s=30.0, clock=lambda: clock[0])


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(RSA_KEY, "RS256", "rsa"), (EC_KEY, "ES256", "ec"), (ED_KEY, "EdDSA", "ed")]
)
async def test_each_algorithm_is_verified_by_the_key_that_the_token_names(key: Any, algorithm: str, kid: str) -> None:
    async with provider() as serving:
        assert (await verifier(fetched(serving)).claims(token(key, algorithm, kid)))["sub"] == "u-1"


@pytest.mark.parametrize("key", [RSA_KEY, EC_KEY, ED_KEY], ids=["rsa", "ec", "ed"])
async def test_a_configured_key_verifies_whatever_key_id_says(key: Any) -> None:
    algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[jwk(key, "x")["kty"]]
    assert (await verifier(ConfiguredKey(pem(key))).claims(token(key, algorithm, "any")))["account"] == "acme"


def unsigned() -> str:
    parts = [json.dumps({"alg": "none", "kid": "rsa"}), json.dumps(claims())]
    return ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts) + "."


def signed_with_the_public_key() -> str:
    """What is signed with HS256 under the public key's bytes: believed by who lets the token choose its algorithm."""

    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "HS256", "kid": "rsa"}, claims())
    )
    mac = hmac.new(pem(RSA_KEY), f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}." + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
# Made when a test begins: a token that has expired by then would be refused for that alone.
BAD: dict[str, Callable[[], str]] = {
    "unsigned": unsigned,
    "HS256 under the public key": signed_with_the_public_key,
    "another's signature": lambda: token(STRANGER),
    "embedded key": lambda: jwt.encode(
        claims(), STRANGER, "RS256", headers={"kid": "rsa", "jwk": jwk(STRANGER, "rsa")}
    ),
    "jku": lambda: jwt.encode(claims(), STRANGER, "RS256", headers={"kid": "rsa", "jku": "http://127.0.0.1:9/"}),
    "x5u": lambda: jwt.encode(claims(), RSA_KEY, "RS256", headers={"kid": "rsa", "x5u": "http://127.0.0.1:9/"}),
    "another algorithm of the key": lambda: token(RSA_KEY, "RS384"),
    "the key of another algorithm": lambda: token(EC_KEY, "ES256", "rsa"),
    "no key id, of three": lambda: token(kid=None),
    "no expiry": lambda: token(exp=None),
    "expired": lambda: token(exp=int(time.time()) - 60),
    "not yet": lambda: token(nbf=int(time.time()) + 60),
    "wrong audience": lambda: token(aud="somebody-else"),
    "no audience": lambda: token(aud=None),
    "wrong issuer": lambda: token(iss="https://evil.example"),
    "no issuer": lambda: token(iss=None),
    "no subject": lambda: token(sub=None),
    "cut": lambda: token()[:-8],
    "not a token": lambda: "eyJ.e30.c2ln",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_whatever_is_wrong_with_a_token_is_the_same_refusal(bad: Callable[[], str]) -> None:
    async with provider() as serving:
        with pytest.raises(Unauthenticated) as refused:
            await verifier(fetched(serving)).claims(bad())
        assert refused.value.body() == Unauthenticated().body()


async def test_clocks_may_differ_by_the_leeway() -> None:
    now = int(time.time())
    async with provider() as serving:
        assert await verifier(fetched(serving)).claims(token(exp=now - 2, nbf=now + 3))


async def test_a_new_key_is_fetched_when_a_token_names_it_and_not_more_often_than_every_30_s() -> None:
    now = [0.0]
    async with provider() as serving:
        keys = verifier(fetched(serving, now))
        await keys.claims(token())
        new = ec.generate_private_key(ec.SECP256R1())
        serving.keys.append(jwk(new, "new"))
        fresh = token(new, "ES256", "new")
        now[0] = 29.0
        with pytest.raises(Unauthenticated):
            await keys.claims(fresh)
        assert serving.asked == 1
        now[0] = 30.0
        assert await keys.claims(fresh)
        for _ in range(5):
            with pytest.raises(Unauthenticated):
                await keys.claims(token(kid="guessed"))
        assert serving.asked == 2


async def test_a_key_that_the_provider_withdraws_is_believed_no_longer_than_its_age() -> None:
    now = [0.0]
    async with provider() as serving:
        keys = verifier(fetched(serving, now))
        await keys.claims(token())
        serving.keys = [jwk(EC_KEY, "ec")]
        now[0] = 301.0
        with pytest.raises(Unauthenticated):
            await keys.claims(token())


async def test_the_last_keys_stand_while_the_provider_is_away_and_without_any_it_is_an_outage() -> None:
    now = [0.0]
    async with provider() as serving:
        keys = verifier(fetched(serving, now))
        serving.status = 503
        with pytest.raises(IdentityUnavailable):
            await keys.claims(token())
        now[0], serving.status = 30.0, 200
        assert await keys.claims(token())
        now[0], serving.status = 1000.0, 503
        assert await keys.claims(token())


@pytest.mark.parametrize(
    "document",
    [
        b"not a key",
        pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
        pem(ec.generate_private_key(ec.SECP384R1())),
    ],
    ids=["garbage", "short RSA", "P-384"],
)
def test_a_key_that_is_not_to_be_trusted_is_refused_at_the_start(document: bytes) -> None:
    with pytest.raises(UnusableKey):
        ConfiguredKey(document)
