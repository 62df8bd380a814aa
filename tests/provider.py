"""An identity provider for tests: it signs tokens and serves its public keys, on loopback."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER, AUDIENCE = "https://login.example", "tollgate"

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> bytes:
    """The public half of a private key."""
    written: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return written


def jwk(key: Any, key_id: str) -> dict[str, Any]:
    algorithms: dict[type, Any] = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    writer = next(writer for kind, writer in algorithms.items() if isinstance(key, kind))
    return {**json.loads(writer.to_jwk(key.public_key())), "kid": key_id, "use": "sig"}


class Provider:
    """`keys` is what it serves now; `asked` counts how often it was."""

    def __init__(self) -> None:
        self.keys = [jwk(RSA_KEY, "rsa"), jwk(EC_KEY, "ec"), jwk(ED_KEY, "ed")]
        self.asked = 0
        self.status = 200
        self.url = ""

    async def serve(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"keys": self.keys}, status=self.status)


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    serving = Provider()
    app = web.Application()
    app.add_routes([web.get("/jwks", serving.serve)])
    async with TestServer(app) as server:
        serving.url = str(server.make_url("/jwks"))
        yield serving
