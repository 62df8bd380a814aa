"""The keys of operators in Postgres: shown once, stored as hashes, asked for on every request, so revoked at once."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from gateway.adapters.postgres.audit_log import AuditLog, ChangeRefused, Signature
from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.core.access.keys import hash_key, secret_of
from gateway.core.access.operators import RANDOM_BYTES, SHOWN_LENGTH, Operator, Role, is_ops_key, make_ops_key


class OpsKey(msgspec.Struct, frozen=True):
    """A key as listings show it: never the secret."""

    id: str
    name: str
    role: str
    prefix: str
    created_at: datetime
    revoked_at: datetime | None


class OpsKeys:
    def __init__(
        self, pool: Pool, audit_log: AuditLog, *, new_id: Callable[[], str], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._pool = pool
        self._audit_log = audit_log
        self._new_id = new_id
        self._random_bytes = random_bytes
        self._sql = load_queries("ops_keys")

    async def find(self, authorization: bytes | None) -> Operator | None:
        """Whom an Authorization header proves; None, whatever is wrong with it."""
        secret = secret_of(authorization)
        if secret is None or not is_ops_key(secret):
            return None
        with outages():
            row = await self._pool.fetchrow(self._sql["by_hash"], hash_key(secret))
        return None if row is None else Operator(row["name"], Role(row["role"]))

    async def create(self, name: str, role: Role, signature: Signature) -> tuple[str, str]:
        """A key for the operator of this name; returns (secret, key id). The secret is shown this once."""
        signature = signature.checked()
        name = Signature(name, "-").checked().author
        secret, key_id = make_ops_key(self._random_bytes(RANDOM_BYTES)), "ops_" + self._new_id().replace("-", "")
        after = {"name": name, "role": role.value}
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                row = (key_id, name, role.value, hash_key(secret.encode()), secret[:SHOWN_LENGTH])
                await connection.execute(self._sql["insert"], *row)
                await self._audit_log.append(connection, signature, "ops_key.create", key_id, before=None, after=after)
        return secret, key_id

    async def list(self) -> list[OpsKey]:
        with outages():
            rows = await self._pool.fetch(self._sql["list"])
        return [OpsKey(**dict(row)) for row in rows]

    async def revoke(self, key_id: str, signature: Signature) -> None:
        """The next request with it is refused. Raises `ChangeRefused` if there is no such key any more."""
        signature = signature.checked()
        gone = ChangeRefused(f"There is no key {key_id[:100]!r} that works; `tollgate ops keys list` shows all.")
        if "\0" in key_id:
            raise gone
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                row = await connection.fetchrow(self._sql["revoke"], key_id)
                if row is None:
                    raise gone
                await self._audit_log.append(
                    connection, signature, "ops_key.revoke", key_id, before=dict(row), after=None
                )
