"""Keys as rows: issued, listed by their beginnings, rotated with an overlap, revoked. Secrets are never stored."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from gateway.adapters.postgres.accounts import AccountError
from gateway.adapters.postgres.audit_log import BY_TOLLGATE, AuditLog, Signature
from gateway.adapters.postgres.caps import read_caps
from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.core.access.callers import Priority
from gateway.core.access.key_terms import KeyTerms, mistake_in, read_networks
from gateway.core.access.keys import SHOWN_LENGTH, hash_key, make_key
from gateway.core.guard.caps import Caps

OVERLAP_MAX = timedelta(days=90)
LISTED_MAX = 10_000
PLAIN = KeyTerms()


class KeyRefused(AccountError):
    """What was asked of a key cannot be done; `param` is the field that is wrong, if one is."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class KeyExists(AccountError):
    """The key that was to be made has been made before."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"The key {key_id} was made before; its secret is not shown again.")
        self.key_id = key_id


class NoSuchKey(AccountError):
    """There is no such key."""


class Key(msgspec.Struct, frozen=True):
    """A key as listings show it: never the secret."""

    id: str
    account_id: str
    prefix: str
    created_at: datetime
    revoked_at: datetime | None
    member_email: str | None
    member_role: str | None
    rotated_from: str | None
    terms: KeyTerms


class Keys:
    def __init__(
        self,
        pool: Pool,
        audit_log: AuditLog,
        *,
        new_id: Callable[[], str],
        random_bytes: Callable[[int], bytes],
        now: Callable[[], datetime],
    ) -> None:
        self._pool = pool
        self._audit_log = audit_log
        self._new_id = new_id
        self._random_bytes = random_bytes
        self._now = now
        self._sql = load_queries("keys")

    async def issue(
        self, account_id: str, terms: KeyTerms = PLAIN, object_id: str | None = None, by: Signature = BY_TOLLGATE
    ) -> tuple[str, str]:
        """Issue a key; returns (secret, key id). The secret is shown this once.

        Raises `KeyRefused`, or `KeyExists` if one was made with this `object_id`.
        """
        mistake = mistake_in(terms, self._now())
        if mistake is not None:
            raise KeyRefused(f"This key cannot be issued: {mistake[1]}.", mistake[0])
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                secret, key_id = await self._insert(connection, account_id, terms, _key_id(object_id or self._new_id()))
                await self._log(connection, by, "key.create", key_id, None, terms)
        return secret, key_id

    async def _log(
        self, connection: Connection, by: Signature, action: str, key_id: str, before: object, after: object
    ) -> None:
        await self._audit_log.append(connection, by.checked(), action, f"key:{key_id}", before=before, after=after)

    async def _insert(
        self, connection: Connection, account_id: str, terms: KeyTerms, key_id: str, rotated_from: str | None = None
    ) -> tuple[str, str]:
        secret = make_key(self._random_bytes(32))
        try:
            found = await connection.fetchval(
                self._sql["insert"],
                key_id,
                account_id,
                hash_key(secret.encode()),
                secret[:SHOWN_LENGTH],
                terms.name,
                terms.member_id,
                sorted(terms.scopes),
                terms.expires_at,
                terms.models,
                terms.endpoints,
                read_networks(terms.networks),
                terms.priority,
                rotated_from,
            )
        except asyncpg.ForeignKeyViolationError as error:
            raise AccountError(f"There is no account {account_id!r}.") from error
        except asyncpg.UniqueViolationError as error:  # of the id: a secret is 256 random bits
            raise KeyExists(key_id) from error
        except asyncpg.DataError as error:  # an id that is no UUID
            raise KeyRefused("There is no such member in this account.", "member_id") from error
        if found is None:
            raise KeyRefused("There is no such member in this account.", "member_id")
        return secret, key_id

    async def find(self, key_id: str, account_id: str | None = None) -> Key:
        """The key of this id, of this account if one is given; raises `NoSuchKey`."""
        row = None
        if "\0" not in key_id:
            with outages():
                row = await self._pool.fetchrow(f"{self._sql['shown']}\n{self._sql['one']}", key_id, account_id)
        if row is None:
            raise NoSuchKey(f"There is no key {key_id!r}; `tollgate keys list` shows them.")
        return _key(row)

    async def listing(
        self, account_id: str, count: int = LISTED_MAX, after: tuple[datetime, str] | None = None
    ) -> list[Key]:
        """An account's keys, the newest first, from behind the one that was created then and has this id."""
        sql = f"{self._sql['shown']}\n{self._sql['of_account']}"
        with outages():
            rows = await self._pool.fetch(sql, account_id, *(after or (None, None)), count)
        return [_key(row) for row in rows]

    async def rotate(
        self, key_id: str, overlap: timedelta, object_id: str | None = None, by: Signature = BY_TOLLGATE
    ) -> tuple[str, str]:
        """Issue a key on the same terms, with the same caps, and let the old one expire after the overlap.

        Returns (secret, key id). Raises `KeyRefused` for a key that is revoked, expired or was rotated already;
        `KeyExists` if it was so to the one with this `object_id`.
        """
        if not timedelta(0) <= overlap <= OVERLAP_MAX:
            raise KeyRefused(f"An overlap is 0 to {OVERLAP_MAX.days} days.", "overlap_s")
        old, made_id = await self.find(key_id), _key_id(object_id or self._new_id())
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                [row] = await connection.fetch(self._sql["lock"], old.id)
                if row["successor"] == made_id:
                    raise KeyExists(made_id)
                if row["successor"] is not None:
                    raise KeyRefused(f"This key was rotated already: {row['successor']} took its place.")
                now = self._now()
                if row["revoked_at"] is not None or (row["expires_at"] is not None and row["expires_at"] <= now):
                    raise KeyRefused("This key is revoked or expired; issue another one.")
                secret, _ = await self._insert(connection, old.account_id, old.terms, made_id, old.id)
                expires_at = await connection.fetchval(self._sql["expire"], old.id, now + overlap)
                states = ({"expires_at": row["expires_at"]}, {"expires_at": expires_at, "successor": made_id})
                await self._log(connection, by, "key.rotate", old.id, *states)
                await self._log(connection, by, "key.create", made_id, None, old.terms)
                caps = await connection.fetchrow(self._sql["hand_down_caps"], old.id, made_id)
                if caps is not None:
                    await self._log(connection, by, "caps.set", made_id, Caps(), read_caps(caps))
        return secret, made_id

    async def revoke(self, key_id: str, account_id: str | None = None, by: Signature = BY_TOLLGATE) -> None:
        """Revoke a key, once; gateways refuse it within a second. Raises `NoSuchKey`."""
        key = await self.find(key_id, account_id)
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                revoked_at = await connection.fetchval(self._sql["revoke"], key.id)
                if revoked_at is not None:
                    await self._log(connection, by, "key.revoke", key.id, None, {"revoked_at": revoked_at})


def _key_id(object_id: str) -> str:
    return "key_" + object_id.replace("-", "")


def _key(row: Any) -> Key:
    terms = KeyTerms(
        name=row["name"],
        member_id=None if row["member_id"] is None else str(row["member_id"]),
        scopes=frozenset(row["scopes"]),
        expires_at=row["expires_at"],
        models=tuple(row["models"]),
        endpoints=tuple(row["endpoints"]),
        networks=tuple(str(each) for each in row["networks"]),
        priority=Priority(row["priority"]),
    )
    return Key(
        row["id"],
        str(row["account_id"]),
        row["prefix"],
        row["created_at"],
        row["revoked_at"],
        row["member_email"],
        row["member_role"],
        row["rotated_from"],
        terms,
    )
