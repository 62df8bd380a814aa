"""JWTs: what of a token's header and claims is believed. Its signature and its times are for who holds the keys.

Whatever is wrong with a token is one refusal, the same as for a key that does not exist.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.core.access.keys import hash_key, secret_of
from gateway.core.errors import Unauthenticated

# One signature each for RSA, P-256 and Ed25519 keys. None that a public key could make, and not "none".
ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})

JWT_LENGTH_MAX = 8192
CLAIM_LENGTH_MAX = 320  # an e-mail address is no longer (RFC 3696)

# A token never says by which key it is to be believed (RFC 8725 §3.10), nor what must be understood beyond RFC 7515.
_UNWELCOME = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "zip", "b64"})
_SHAPE = re.compile(rb"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class ClaimNames(msgspec.Struct, frozen=True):
    """Which claims name the account and the member; a provider's own ones may be URLs."""

    account: str
    member: str
    email: str


class Identity(msgspec.Struct, frozen=True):
    """Who a provider says that is, for how long."""

    account: str  # id or name
    subject: str
    email: str  # "" if the token does not tell, or says that nobody verified it
    expires_at_s: int
    is_email_verified: bool = False  # the token says so, with a plain true


def is_jwt(secret: bytes) -> bool:
    """Whether `secret` looks like a signed token.

    >>> is_jwt(b"eyJhbGciOiJFUzI1NiJ9.e30.c2ln"), is_jwt(b"sk-tg-x"), is_jwt(b"eyJhbGciOiJub25lIn0.e30.")
    (True, False, False)
    """
    return len(secret) <= JWT_LENGTH_MAX and _SHAPE.fullmatch(secret) is not None


def token_of(authorization: bytes) -> bytes | None:
    """The token in an Authorization header; None if it holds none.

    >>> token_of(b"Bearer eyJhbGciOiJFUzI1NiJ9.e30.c2ln"), token_of(b"Bearer sk-tg-x")
    (b'eyJhbGciOiJFUzI1NiJ9.e30.c2ln', None)
    """
    secret = secret_of(authorization, JWT_LENGTH_MAX)
    return secret if secret is not None and is_jwt(secret) else None


def token_credential_of(authorization: bytes) -> bytes | None:
    """What stands for a token wherever callers are looked up: its hash. None if the header holds no token."""
    token = token_of(authorization)
    return None if token is None else hash_key(token)


def key_id_of(header: Mapping[str, Any]) -> str | None:
    """The id of the key that signed; raises `Unauthenticated` for a header that is not believed."""
    key_id, algorithm = header.get("kid"), header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or not _UNWELCOME.isdisjoint(header):
        raise Unauthenticated
    if key_id is not None and not isinstance(key_id, str):
        raise Unauthenticated
    return key_id


def identity_of(claims: Mapping[str, Any], names: ClaimNames) -> Identity:
    """Who verified claims speak of; raises `Unauthenticated` where one is missing or no plain text."""
    account, subject = _text(claims.get(names.account)), _text(claims.get(names.member))
    if not account or not subject:
        raise Unauthenticated
    # An address that nobody verified could be another member's.
    verified = claims.get("email_verified")
    email = "" if verified is False else _text(claims.get(names.email))
    return Identity(account, subject, email, int(claims["exp"]), verified is True)


def _text(value: object) -> str:
    """The value of a claim, or "" if it is no plain text."""
    is_plain = isinstance(value, str) and len(value) <= CLAIM_LENGTH_MAX and value.isprintable()
    return str(value) if is_plain else ""
