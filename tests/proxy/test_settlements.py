"""Settlements that Redis took and lost again, while Postgres comes and goes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.adapters.journal import Journal
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.redis.credits import Credits
from gateway.adapters.redis.link import RedisLink
from gateway.adapters.redis.scripts import Scripts
from gateway.core.holds import Hold
from gateway.core.shards import SHARDS, shard_of
from gateway.proxy.settlements import BATCH, Settlements
from gateway.resources import shipped
from tests.books import new_id, settlement


class EmptyLedger:
    """Nothing was posted. It is away when it is asked for the `away_at`-th time."""

    def __init__(self, *, away_at: int) -> None:
        self._left = away_at

    async def ended(self, request_ids: list[str]) -> set[str]:
        self._left -= 1
        if self._left == 0:
            raise LedgerUnavailable("away")
        return set()

    async def lapses(self, request_ids: list[str]) -> dict[str, int]:
        return {}

    async def quarantined(self, request_ids: list[str]) -> set[str]:
        return set()


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[RedisLink]:
    link = RedisLink(redis_url, reconnect_backoff_ms_max=20)
    await link.open()
    yield link
    await link.close()


async def test_what_redis_lost_is_sent_again_though_postgres_goes_away_before_all_was_looked_at(
    link: RedisLink, tmp_path: Path
) -> None:
    credits = Credits(link, Scripts(shipped("lua")), lease_ms=60_000, refusal_ttl_ms=60_000, tombstone_ttl_ms=60_000)
    account_id, calls, balance = new_id(), BATCH + 1, 10_000

    async def load_account(_: str) -> None:
        await credits.load(account_id, balance, 0)

    journal = Journal(tmp_path / "a.journal")
    settlements = Settlements(credits, journal, EmptyLedger(away_at=2), load_account, retained_max=2 * calls)
    await credits.rebuild(shard_of(account_id), 1, 0, 0)
    await load_account(account_id)
    ends = [settlement(account_id, 1) for _ in range(calls)]
    await asyncio.gather(*(credits.reserve(Hold(each.request_id, 1, "", each.terms)) for each in ends))
    await asyncio.gather(*map(settlements.settle, ends))

    await link.command(b"FLUSHALL")
    await credits.rebuild(shard_of(account_id), 2, calls, 0)
    with pytest.raises(LedgerUnavailable):
        await settlements.confirm([(2, 0)] * SHARDS)

    found = await credits.balance(account_id)
    assert found is not None
    assert (found.balance, settlements.retained) == (balance - BATCH, calls)
    await journal.close()
