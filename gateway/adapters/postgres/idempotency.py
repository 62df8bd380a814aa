"""Idempotency keys: however often a request comes with one, what it creates is created once.

The key stands for the id of what is created, from before it is. So a crash in between, or two requests at once, find
the id taken; and no answer has to be stored, with a secret in it.
"""

from collections.abc import Callable
from datetime import timedelta

from gateway.adapters.postgres.database import Pool, load_queries, outages

KEPT = timedelta(days=30)


class IdempotencyMismatch(Exception):
    """The key was used with another request."""


class Idempotency:
    def __init__(self, pool: Pool, *, new_id: Callable[[], str]) -> None:
        self._pool = pool
        self._new_id = new_id
        self._sql = load_queries("idempotency")

    async def claim(self, account_id: str, key: str, fingerprint: bytes) -> str:
        """The id that this request's object has or is to have; raises `IdempotencyMismatch`."""
        with outages():
            await self._pool.execute(self._sql["claim"], account_id, key, fingerprint, self._new_id(), KEPT)
            row = await self._pool.fetchrow(self._sql["claimed"], account_id, key)
        if row is None or row["fingerprint"] != fingerprint:
            raise IdempotencyMismatch(f"The idempotency key {key!r} was used with another request.")
        return str(row["object_id"])
