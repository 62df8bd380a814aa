"""Operators: who may do what on the operations listener, and what proves one: a key, or claims that are verified.

Randomness is an argument.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from gateway.core.errors import Unauthenticated

PREFIX = "sk-ops-"
RANDOM_BYTES = 32
NAME_LENGTH_MAX = 200
SHOWN_LENGTH = len(PREFIX) + 6  # of a key in listings

_SHAPE = re.compile(rb"sk-ops-[A-Za-z0-9_-]{43}")


class Role(StrEnum):
    """Each may do what those before it may."""

    VIEWER = "viewer"  # look at everything
    OPERATOR = "operator"  # flags, accounts, reviews, corrections
    ADMIN = "admin"  # the keys of operators

    def may(self, needed: "Role") -> bool:
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(needed)


class Operator(msgspec.Struct, frozen=True):
    """Who asks: the author of whatever is changed."""

    name: str
    role: Role


class OperatorClaims(msgspec.Struct, frozen=True):
    """Which claims name an operator and its roles, and how long a token may live, since none can be revoked."""

    name: str
    role: str  # one role or a list of them, each after `role_prefix`
    role_prefix: str
    lifetime_s_max: int


def operator_of(claims: Mapping[str, Any], read: OperatorClaims, now_s: int) -> Operator:
    """Whom verified claims make an operator, of its highest role; raises `Unauthenticated` if they make nobody one.

    >>> read = OperatorClaims("email", "groups", "tollgate-", 3600)
    >>> operator_of({"email": "ann@x.io", "groups": ["staff", "tollgate-viewer"], "exp": 600}, read, 0)
    Operator(name='ann@x.io', role=<Role.VIEWER: 'viewer'>)
    """
    name, told = claims.get(read.name), claims.get(read.role)
    values = [told] if isinstance(told, str) else told if isinstance(told, list) else []
    roles = [role for role in Role if read.role_prefix + role in values]
    is_name = isinstance(name, str) and name == name.strip() and 0 < len(name) <= NAME_LENGTH_MAX and name.isprintable()
    # An address that nobody verified could be another operator's.
    is_own = read.name != "email" or claims.get("email_verified") is not False
    is_short = int(claims["exp"]) - now_s <= read.lifetime_s_max
    if not (roles and is_name and is_own and is_short):
        raise Unauthenticated
    return Operator(str(name), roles[-1])


def make_ops_key(random: bytes) -> str:
    """The key of 32 random bytes."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} random bytes, not {len(random)}")
    return PREFIX + urlsafe_b64encode(random).rstrip(b"=").decode()


def is_ops_key(secret: bytes) -> bool:
    return _SHAPE.fullmatch(secret) is not None
