"""Who is calling: from the Authorization header to a `Caller`, by a cache that follows changed keys and accounts.

Most requests are answered from the cache without waiting. It is keyed by the hash of the secret and holds no secret.
While Postgres is away, callers that are known keep working for a bounded time; unknown ones are told to come back.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Protocol

import structlog

from gateway.adapters.postgres.database import LedgerUnavailable, Pool, load_queries, outages
from gateway.core.access.callers import Caller, Restrictions, Status, may_call
from gateway.core.access.jwts import token_of
from gateway.core.access.keys import credential_of
from gateway.core.errors import BillingUnavailable, Unauthenticated

log = structlog.get_logger(__name__)

# Longer than any transaction that changes a key or an account may take.
OVERLAP_S = 30.0


class CallerDirectory:
    """Looks callers up. `clock` gives seconds of any monotonic clock, `now_ms` the time by which keys expire."""

    def __init__(
        self,
        pool: Pool,
        *,
        cached_keys_max: int,
        unknown_key_ttl_s: float,
        stale_s_max: float,
        poll_s: float,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._cached_keys_max = cached_keys_max
        self._unknown_key_ttl_s = unknown_key_ttl_s
        self._stale_s_max = stale_s_max
        self._poll_s = poll_s
        self._clock = clock
        self._now_ms = now_ms
        sql = load_queries("callers")
        self._find, self._changed = (f"{sql['caller']}\n{sql[which]}" for which in ("by_hash", "changed"))
        self._callers: OrderedDict[bytes, Caller] = OrderedDict()  # by hash, the least recently used first
        self._unknown: OrderedDict[bytes, float] = OrderedDict()  # hash → when to ask again
        self._asking: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._fresh_at = clock()  # every change before this moment is in the cache

    def known(self, credential: bytes) -> Caller | None:
        """The caller, if the cache knows; None means that `authenticate` must be asked."""
        caller = self._callers.get(credential)
        if caller is None or self._clock() - self._fresh_at > self._stale_s_max:
            return None
        if caller.expires_at_ms is not None and caller.expires_at_ms <= self._now_ms():
            return None
        self._callers.move_to_end(credential)
        return caller

    async def authenticate(self, authorization: bytes | None) -> Caller:
        """Return the caller. Raises `Unauthenticated`, the same whatever the cause, or `BillingUnavailable`."""
        hashed = None if authorization is None else credential_of(authorization)
        if hashed is None:
            raise Unauthenticated
        known = self.known(hashed)
        if known is not None:
            return known
        if self._unknown.get(hashed, 0.0) > self._clock():
            raise Unauthenticated
        caller = await self._ask_once(hashed)
        if caller is None:
            raise Unauthenticated
        return caller

    async def _ask_once(self, hashed: bytes) -> Caller | None:
        """However many requests come with one key at once, Postgres is asked once, and no leaving caller stops it."""
        asking = self._asking.get(hashed)
        if asking is None:
            asking = asyncio.create_task(self._ask(hashed))
            self._asking[hashed] = asking
            asking.add_done_callback(lambda task: self._asked(hashed, task))
        try:
            return await asyncio.shield(asking)
        except LedgerUnavailable as error:
            raise BillingUnavailable(retry_after_s=1) from error

    def _asked(self, hashed: bytes, task: asyncio.Task[Caller | None]) -> None:
        self._asking.pop(hashed, None)
        if not task.cancelled():
            task.exception()  # seen, also when everybody who waited has left

    async def _ask(self, hashed: bytes) -> Caller | None:
        with outages():
            row = await self._pool.fetchrow(self._find, hashed)
        caller = self._read(row)
        self._remember(hashed, caller)
        return caller

    def _remember(self, hashed: bytes, caller: Caller | None) -> None:
        if caller is None:
            self._callers.pop(hashed, None)
            self._unknown[hashed] = self._clock() + self._unknown_key_ttl_s
            self._unknown.move_to_end(hashed)
        else:
            self._unknown.pop(hashed, None)
            self._callers[hashed] = caller
            self._callers.move_to_end(hashed)
        # Apart, so that guessing keys evicts nobody who has one.
        for cache in (self._callers, self._unknown):
            while len(cache) > self._cached_keys_max:
                cache.popitem(last=False)

    async def refresh_step(self) -> int:
        """Bring the cache up to date with what changed; returns how many entries did. Raises `LedgerUnavailable`."""
        looked_at = self._clock()
        since_s = looked_at - self._fresh_at + OVERLAP_S
        with outages():
            rows = await self._pool.fetch(self._changed, timedelta(seconds=since_s))
        changed = 0
        for row in rows:
            hashed: bytes = row["hash"]
            caller = self._read(row)
            if hashed in self._callers and self._callers[hashed] != caller:
                changed += 1
                if caller is None:
                    del self._callers[hashed]
                else:
                    self._callers[hashed] = caller
            if caller is not None:
                self._unknown.pop(hashed, None)
        self._fresh_at = looked_at
        return changed

    async def run(self) -> None:
        await poll(self.refresh_step, self._poll_s, "changed keys")

    @property
    def stale_s(self) -> float:
        """How old the cache's knowledge is."""
        return self._clock() - self._fresh_at

    def _read(self, row: Any) -> Caller | None:
        """The caller whom a key stands for, or None: unknown, revoked, expired and removed are the same."""
        if row is None or row["revoked_at"] is not None or row["member_status"] == "removed":
            return None
        expires_at_ms = None if row["expires_at"] is None else int(row["expires_at"].timestamp() * 1000)
        if expires_at_ms is not None and expires_at_ms <= self._now_ms():
            return None
        return Caller(
            account_id=str(row["account_id"]),
            key_id=row["key_id"],
            status=status_of(row),
            on_disconnect=row["on_disconnect"],
            member_id=None if row["member_id"] is None else str(row["member_id"]),
            role=row["role"],
            is_barred=row["member_status"] == "suspended",
            scopes=frozenset(row["scopes"]),
            expires_at_ms=expires_at_ms,
            restrictions=_restrictions(row),
            review=row["review"] or "",
            plan=row["plan"],
            priority=row["priority"],
            key_priority=row["key_priority"],
            time_zone=row["time_zone"],
        )


class Tokens(Protocol):
    """Who is calling, by a token: see `identities`."""

    def known(self, credential: bytes) -> Caller | None: ...

    async def authenticate(self, authorization: bytes | None) -> Caller: ...


class KeysAndTokens:
    """Callers of either kind."""

    def __init__(self, keys: CallerDirectory, tokens: Tokens) -> None:
        self._keys = keys
        self._tokens = tokens

    def known(self, credential: bytes) -> Caller | None:
        return self._keys.known(credential) or self._tokens.known(credential)

    async def authenticate(self, authorization: bytes | None) -> Caller:
        is_token = authorization is not None and token_of(authorization) is not None
        return await (self._tokens if is_token else self._keys).authenticate(authorization)


async def poll(step: Callable[[], Awaitable[int]], poll_s: float, what: str) -> None:
    """Step for ever. An outage is logged once; a cache then lives on within its bound."""
    was_away = False
    while True:
        try:
            await step()
        except LedgerUnavailable as error:
            if not was_away:
                log.warning(f"{what} cannot be read", error=str(error))
            was_away = True
        else:
            was_away = False
        await asyncio.sleep(poll_s)


def status_of(row: Any) -> Status:
    """The worst of the account's, the member's and the key's. An account's review is in its own status already."""
    if "suspended" in (row["status"], row["member_status"]):
        return "suspended"
    return "in_review" if row["status"] == "in_review" or row["is_narrow"] else "active"


def _restrictions(row: Any) -> Restrictions | None:
    is_let = may_call(row["scopes"], row["role"])
    if is_let and not (row["models"] or row["endpoints"] or row["networks"]):
        return None
    return Restrictions(is_let, tuple(row["models"]), tuple(row["endpoints"]), tuple(row["networks"]))
