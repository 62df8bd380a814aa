"""The pool: what its connections are, and when the server ends them."""

import asyncio
from datetime import timedelta

import pytest

from gateway.adapters.postgres.database import IDLE_IN_TRANSACTION_S, LedgerUnavailable, open_pool, outages
from gateway.adapters.postgres.provider_costs import CLOSING_TIME
from tests.patience import PATIENCE_S


def test_a_transaction_whose_process_sleeps_is_over_before_its_day_is_closed() -> None:
    assert timedelta(seconds=IDLE_IN_TRANSACTION_S) < CLOSING_TIME


async def test_a_transaction_whose_process_sleeps_is_ended_and_posts_nothing(database_url: str) -> None:
    async with await open_pool(
        database_url, connections_max=2, connect_timeout_s=5, command_timeout_s=5, idle_in_transaction_s=1
    ) as pool:
        with pytest.raises(LedgerUnavailable), outages():
            async with pool.acquire() as asleep, asleep.transaction():
                pid = await asleep.fetchval("SELECT pg_backend_pid()")
                async with asyncio.timeout(PATIENCE_S):
                    while await pool.fetchval("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pid):
                        await asyncio.sleep(0.05)
                await asleep.execute("INSERT INTO account (id, name) VALUES (gen_random_uuid(), 'late')")
        assert await pool.fetchval("SELECT count(*) FROM account WHERE name = 'late'") == 0
