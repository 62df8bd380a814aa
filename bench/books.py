"""Puts accounts, keys and open holds into a running Tollgate's books by the thousand, through its own adapters: the
command line, one process a command, would take hours.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, TypeVar

import msgspec

from bench.processes import BenchError
from gateway.adapters.postgres.accounts import AccountError
from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.cap_desk import Capped
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.postgres.keys import PLAIN
from gateway.adapters.redis.credits import CreditsError, Reserved
from gateway.adapters.redis.link import RedisUnavailable
from gateway.app.sources import RequestIds, now_ms
from gateway.app.stores import Stores, open_stores
from gateway.config import ConfigError, load
from gateway.core.access.roles import Role
from gateway.core.holds import Hold, Outcome, Settlement, Terms
from gateway.core.money import UCR_PER_CREDIT
from gateway.logs import configure_logs

AT_ONCE = 500  # commands in flight: Redis answers so many well within the link's timeout
SLICE = 1000  # after which progress is told
CREDITS_EACH = 1_000_000
COMMAND_TIMEOUT_MS = 10_000  # a gateway gives up sooner, but no caller waits here
HOLD_LEASE_MS = 3_600_000
HOLD_UCR = 1000
MANY = 2**40
EVERY_CAP: Mapping[str, Any] = {
    "request": CREDITS_EACH * UCR_PER_CREDIT,
    "day": CREDITS_EACH * UCR_PER_CREDIT,
    "month": CREDITS_EACH * UCR_PER_CREDIT,
    "output_tokens": 10_000,
    "requests_a_minute": 10_000_000,
    "tokens_a_minute": MANY,
    "concurrent": 10_000,
    "models_allowed": ("gpt-*",),
    "models_denied": ("o1*",),
}

Item = TypeVar("Item")
Told = Callable[[int], None]


def tell_nobody(_: int) -> None:
    pass


class Books:
    """`tell` hears how many of a long series are done."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self._config = load(None, database_url=database_url, redis_url=redis_url)
        self._new_id = RequestIds()

    def new_ids(self, count: int) -> list[str]:
        return [self._new_id() for _ in range(count)]

    def add_callers(self, count: int, tell: Told = tell_nobody) -> tuple[str, ...]:
        """Open accounts that have credit, with one key each; returns the keys."""

        async def add(stores: Stores, account_id: str) -> str:
            account = await stores.accounts.create(f"bench caller {account_id}")
            await stores.accounts.grant(account.id, CREDITS_EACH * UCR_PER_CREDIT, "bench")
            return (await stores.keys.issue(account.id))[0]

        keys: list[str] = []

        async def main() -> None:
            async with self._stores() as stores:

                async def add_one(account_id: str) -> None:
                    keys.append(await add(stores, account_id))

                await _each(self.new_ids(count), add_one, tell)

        asyncio.run(main())
        return tuple(keys)

    def add_guarded(self, count: int) -> tuple[str, ...]:
        """Callers who have every cap there is, none of which refuses them: of account, member and key."""

        async def add(stores: Stores, account_id: str) -> str:
            account = await stores.accounts.create(f"bench caller {account_id}")
            await stores.accounts.grant(account.id, CREDITS_EACH * UCR_PER_CREDIT, "bench")
            member = await stores.members.create(account.id, f"{account_id}@bench.example", Role.MEMBER)
            key, key_id = await stores.keys.issue(account.id, msgspec.structs.replace(PLAIN, member_id=member.id))
            signature = Signature("bench", "to measure what caps cost")
            for level, holder in (("account", account.id), ("member", member.id), ("key", key_id)):
                await stores.caps.set(Capped(level, holder, holder, account.id), EVERY_CAP, signature)
            return key

        async def main() -> tuple[str, ...]:
            async with self._stores() as stores:
                return tuple([await add(stores, account_id) for account_id in self.new_ids(count)])

        return asyncio.run(main())

    def load_into_redis(self, account_ids: Sequence[str], tell: Told) -> None:
        """As the first call of each account would."""

        async def main() -> None:
            async with self._stores() as stores:
                await _each(account_ids, lambda account_id: stores.credits.load(account_id, 0, 0), tell)

        asyncio.run(main())

    def open_holds(self, account_ids: Sequence[str], count: int, tell: Told) -> list[Hold]:
        """Open holds, spread over the accounts; they stay open for an hour unless they are voided."""
        holds = [
            _hold(request_id, account_ids[n % len(account_ids)]) for n, request_id in enumerate(self.new_ids(count))
        ]

        async def main() -> None:
            async with self._stores(lease_ms=HOLD_LEASE_MS) as stores:

                async def open_one(hold: Hold) -> None:
                    answer = await stores.credits.reserve(hold)
                    if not isinstance(answer, Reserved):
                        raise BenchError(f"a hold was refused: {answer}")

                await _each(holds, open_one, tell)

        asyncio.run(main())
        return holds

    def void(self, holds: Sequence[Hold], tell: Told) -> None:
        async def main() -> None:
            async with self._stores() as stores:
                await _each(holds, lambda hold: stores.credits.void(_voided(hold)), tell)

        asyncio.run(main())

    @asynccontextmanager
    async def _stores(self, lease_ms: int | None = None) -> AsyncIterator[Stores]:
        configure_logs("error", "console")
        holds = self._config.holds.model_copy(update={"lease_ms": lease_ms} if lease_ms else {})
        redis = self._config.redis.model_copy(update={"command_timeout_ms": COMMAND_TIMEOUT_MS})
        try:
            async with open_stores(self._config.model_copy(update={"holds": holds, "redis": redis})) as stores:
                yield stores
        except (ConfigError, AccountError, CreditsError, RedisUnavailable, LedgerUnavailable) as error:
            raise BenchError(f"the books could not be filled: {error}") from error


async def _each(items: Iterable[Item], act: Callable[[Item], Awaitable[object]], tell: Told) -> None:
    """Act on every item, `AT_ONCE` at a time."""
    left, done = iter(items), 0
    while some := list(islice(left, AT_ONCE)):
        await asyncio.gather(*map(act, some))
        done += len(some)
        if done % SLICE == 0:
            tell(done)


def _hold(request_id: str, account_id: str) -> Hold:
    terms = Terms(
        account_id=account_id,
        key_id="key_bench",
        endpoint="chat.completions",
        model="gpt-4o-mini",
        rate_version="bench",
        opened_at_ms=now_ms(),
    )
    return Hold(request_id=request_id, amount=HOLD_UCR, fingerprint="bench", terms=terms)


def _voided(hold: Hold) -> Settlement:
    return Settlement(
        request_id=hold.request_id,
        terms=hold.terms,
        outcome=Outcome.VOID,
        held=hold.amount,
        cost=0,
        event_at_ms=now_ms(),
    )
