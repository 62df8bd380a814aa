"""What of a token is believed, its signature apart."""

import pytest

from gateway.core.access.jwts import ClaimNames, Identity, identity_of, is_jwt, key_id_of
from gateway.core.errors import Unauthenticated

NAMES = ClaimNames(account="account", member="sub", email="email")
CLAIMS = {"account": "acme", "sub": "u-1", "email": "a@acme.example", "exp": 2_000_000_000}


def test_a_token_names_account_member_and_address() -> None:
    assert identity_of(CLAIMS, NAMES) == Identity("acme", "u-1", "a@acme.example", 2_000_000_000)


@pytest.mark.parametrize("value", [None, "", 7, ["acme"], "a\nb", "a\x00", "x" * 321])
@pytest.mark.parametrize("claim", ["account", "sub"])
def test_a_claim_that_is_no_plain_text_is_refused(claim: str, value: object) -> None:
    with pytest.raises(Unauthenticated):
        identity_of({**CLAIMS, claim: value}, NAMES)


def test_an_address_that_nobody_verified_is_not_believed() -> None:
    assert identity_of({**CLAIMS, "email_verified": False}, NAMES).email == ""


@pytest.mark.parametrize("told", [None, False, "true", "false", 1, [True]])
def test_an_address_is_verified_by_a_plain_true_only(told: object) -> None:
    assert identity_of({**CLAIMS, "email_verified": True}, NAMES).is_email_verified
    assert not identity_of({**CLAIMS, "email_verified": told}, NAMES).is_email_verified
    assert not identity_of(CLAIMS, NAMES).is_email_verified


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "RS512"},
        {"alg": "rs256"},
        {"alg": ["RS256"]},
        {"alg": {"RS256": 1}},
        {"alg": "RS256", "jku": "https://evil.example"},
        {"alg": "RS256", "x5u": "https://evil.example"},
        {"alg": "RS256", "x5c": []},
        {"alg": "RS256", "jwk": {}},
        {"alg": "RS256", "crit": ["b64"]},
        {"alg": "RS256", "kid": 7},
    ],
)
def test_a_header_that_picks_its_own_proof_is_refused(header: dict[str, object]) -> None:
    with pytest.raises(Unauthenticated):
        key_id_of(header)


def test_the_key_of_a_token_is_the_one_that_it_names() -> None:
    assert key_id_of({"alg": "EdDSA", "kid": "2026-11"}) == "2026-11"
    assert key_id_of({"alg": "RS256"}) is None


def test_a_token_longer_than_any_provider_makes_is_none() -> None:
    assert not is_jwt(b"eyJ" + b"a" * 9000 + b".e30.c2ln")
