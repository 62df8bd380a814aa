"""Keys: the secret `sk-tg-…` that proves a caller, how it is made, recognised and hashed. Randomness is an argument.

A key ends in a checksum, so a mistyped or truncated one is refused without asking the database. The checksum is no
proof: only the hash, found in the database, is.
"""

import base64
import hashlib
import re
from zlib import crc32

PREFIX = "sk-tg-"
RANDOM_BYTES = 32
SHOWN_LENGTH = len(PREFIX) + 6  # of a key in listings

_SHAPE = re.compile(rb"sk-tg-[A-Za-z0-9_-]{43}[A-Za-z0-9_-]{6}")
_BEARER = b"bearer "
_AUTHORIZATION_LENGTH_MAX = 512


def make_key(random: bytes) -> str:
    """Return the key of 32 random bytes: 43 characters for them, 6 for the checksum.

    >>> make_key(bytes(32))
    'sk-tg-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAn890Ag'
    """
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} random bytes, not {len(random)}")
    body = PREFIX.encode() + _base64(random)
    return (body + _checksum(body)).decode()


def is_key(secret: bytes) -> bool:
    """Whether `secret` has the shape of a key and its checksum fits."""
    return _SHAPE.fullmatch(secret) is not None and secret[-6:] == _checksum(secret[:-6])


def secret_of(authorization: bytes | None, length_max: int = _AUTHORIZATION_LENGTH_MAX) -> bytes | None:
    """The secret in an Authorization header, or None; its shape is not checked.

    >>> secret_of(b"Bearer sk-tg-x"), secret_of(b"Basic eDp5")
    (b'sk-tg-x', None)
    """
    if authorization is None or len(authorization) > length_max:
        return None
    if authorization[: len(_BEARER)].lower() != _BEARER:
        return None
    return authorization[len(_BEARER) :].strip()


def credential_of(authorization: bytes) -> bytes | None:
    """What stands for a key wherever callers are looked up: its hash. None if the header holds no key."""
    secret = secret_of(authorization)
    return None if secret is None or not is_key(secret) else hash_key(secret)


def hash_key(secret: bytes) -> bytes:
    """The only form in which a key is stored. 256 random bits cannot be guessed, so one fast SHA-256 is right."""
    return hashlib.sha256(secret).digest()


def _checksum(body: bytes) -> bytes:
    return _base64(crc32(body).to_bytes(4, "big"))


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
