"""The public keys of an identity provider, and the tokens that they verify.

Keys come from its JWKS address, or are configured. They are fetched again when they are old, and when a token names one
that is not known, but then not more often than every `refetch_s`. While the provider is away, the last ones stand.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import aiohttp
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gateway.core.access.jwts import key_id_of
from gateway.core.errors import IdentityUnavailable, Unauthenticated

log = structlog.get_logger(__name__)

JWKS_BYTES_MAX = 256 * 1024
RSA_BITS_MIN = 2048

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
Keys = dict[str | None, tuple[str, PublicKey]]  # the algorithm of each, and itself; under None, if there is but one


class UnusableKey(Exception):
    """The key is none that tokens can be verified with."""


class KeySource(Protocol):
    async def find(self, key_id: str | None) -> tuple[str, PublicKey] | None:
        """The algorithm and the key of this id, if there is one; raises `IdentityUnavailable`."""
        ...


class Verifier:
    """Believes tokens of one issuer for one audience."""

    def __init__(self, keys: KeySource, *, issuer: str, audience: str, leeway_s: float) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._leeway_s = leeway_s

    async def claims(self, token: str) -> Mapping[str, Any]:
        """What the token claims. Raises `Unauthenticated`, the same whatever is wrong, or `IdentityUnavailable`."""
        try:
            key_id = key_id_of(jwt.get_unverified_header(token))
        except jwt.InvalidTokenError as error:
            raise Unauthenticated from error
        found = await self._keys.find(key_id)
        if found is None:
            raise Unauthenticated
        algorithm, key = found
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],  # the key's, whatever the token says
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            raise Unauthenticated from error
        return claims


class ConfiguredKey:
    """One key, from the configuration, for tokens of whatever key id."""

    def __init__(self, pem: bytes) -> None:
        """Raises `UnusableKey`."""
        try:
            key = load_pem_public_key(pem)
        except ValueError as error:
            raise UnusableKey("it is not a public key in PEM") from error
        algorithm = _algorithm_of(key)
        if algorithm is None or not isinstance(key, PublicKey):
            raise UnusableKey(f"it must be an RSA key of {RSA_BITS_MIN} bits or more, a P-256 or an Ed25519 one")
        self._found = (algorithm, key)

    async def find(self, key_id: str | None) -> tuple[str, PublicKey] | None:
        return self._found


class FetchedKeys:
    """The keys at a JWKS address."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        age_s_max: float,
        refetch_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._age_s_max = age_s_max
        self._refetch_s = refetch_s
        self._clock = clock
        self._keys: Keys = {}
        self._fetched_at: float | None = None  # with success
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None) -> tuple[str, PublicKey] | None:
        """The key of this id, or, of a token that names none, the only one there is."""
        found = self._keys.get(key_id)
        now = self._clock()
        is_old = self._fetched_at is None or now - self._fetched_at > self._age_s_max
        may_fetch = self._tried_at is None or now - self._tried_at >= self._refetch_s
        if self._fetching is not None or ((found is None or is_old) and may_fetch):
            await self._fetch_once()
            found = self._keys.get(key_id)
        if found is None and self._fetched_at is None:
            raise IdentityUnavailable(retry_after_s=1)
        return found

    async def _fetch_once(self) -> None:
        """However many tokens wait for it, one request is made, and none that leaves stops it."""
        if self._fetching is None:
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            keys = _keys_of(await self._get())
        except (aiohttp.ClientError, TimeoutError, OSError, jwt.PyJWTError, ValueError) as error:
            log.warning("the identity provider's keys cannot be read", error=str(error) or type(error).__name__)
        else:
            self._keys, self._fetched_at = keys, self._clock()
        finally:
            self._fetching = None

    async def _get(self) -> bytes:
        async with (
            aiohttp.ClientSession(timeout=self._timeout) as session,
            session.get(self._url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise ValueError(f"status {answer.status}")
            body = b""
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > JWKS_BYTES_MAX:
                    raise ValueError(f"more than {JWKS_BYTES_MAX} bytes")
            return body


def _keys_of(document: bytes) -> Keys:
    """The keys of a JWKS that sign with one of our algorithms. Raises ValueError or jwt.PyJWTError."""
    given: Sequence[jwt.PyJWK] = jwt.PyJWKSet.from_json(document.decode()).keys
    keys: Keys = {}
    for each in given:
        algorithm = _algorithm_of(each.key)
        if algorithm == each.algorithm_name and each.public_key_use in (None, "sig"):
            keys[each.key_id] = (algorithm, each.key)
    if len(keys) == 1:
        keys[None] = next(iter(keys.values()))
    return keys


def _algorithm_of(key: object) -> str | None:
    """The algorithm that a key signs with here; None if it is not to be trusted with any."""
    if isinstance(key, RSAPublicKey) and key.key_size >= RSA_BITS_MIN:
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    return "EdDSA" if isinstance(key, Ed25519PublicKey) else None
