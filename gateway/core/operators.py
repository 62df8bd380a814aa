"""Operators: who may do what on the operations listener, and the secret that proves one. Randomness is an argument."""

import re
from base64 import urlsafe_b64encode
from enum import StrEnum

import msgspec

PREFIX = "sk-ops-"
RANDOM_BYTES = 32
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


def make_ops_key(random: bytes) -> str:
    """The key of 32 random bytes."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} random bytes, not {len(random)}")
    return PREFIX + urlsafe_b64encode(random).rstrip(b"=").decode()


def is_ops_key(secret: bytes) -> bool:
    return _SHAPE.fullmatch(secret) is not None
