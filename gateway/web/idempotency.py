"""`Idempotency-Key` on a request that creates something: the id of what it creates, however often it comes."""

import hashlib

from aiohttp import web

from gateway.adapters.postgres.idempotency import Idempotency
from gateway.adapters.postgres.idempotency import IdempotencyMismatch as Mismatch
from gateway.core.access.callers import Caller
from gateway.core.errors import IdempotencyMismatch, InvalidRequest

KEY_LENGTH_MAX = 200


async def object_id_of(request: web.Request, caller: Caller, idempotency: Idempotency) -> str | None:
    """The id for what this request creates; None for any: it came without a key.

    Raises `InvalidRequest` for an unusable key, `IdempotencyMismatch` for one of another request.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 0 < len(key) <= KEY_LENGTH_MAX or not key.isprintable():
        raise InvalidRequest(f"An Idempotency-Key is 1 to {KEY_LENGTH_MAX} printable characters.")
    # Who asks belongs to what is asked: a key without `memberId` is the asker's own.
    asker = (caller.member_id or "").encode()
    asked = b"%b %b %b\n%b" % (asker, request.method.encode(), request.path.encode(), await request.read())
    try:
        return await idempotency.claim(caller.account_id, key, hashlib.sha256(asked).digest())
    except Mismatch as error:
        raise IdempotencyMismatch from error
