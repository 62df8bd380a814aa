"""The fixtures of tests/conftest.py keep what they promise to every other test."""

from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis


@pytest.mark.parametrize("run", [1, 2])
async def test_every_test_gets_a_redis_of_its_own_that_is_empty(redis_url: str, run: int) -> None:
    async with Redis.from_url(redis_url) as redis:
        assert await redis.dbsize() == 0
        await redis.set("left behind by run", run)


@pytest.mark.parametrize("run", [1, 2])
async def test_every_test_gets_a_database_of_its_own_that_is_empty(empty_database_url: str, run: int) -> None:
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute("CREATE TABLE left_behind (run int)")
        assert await connection.fetchval("SELECT current_database()") == urlsplit(empty_database_url).path[1:]
    finally:
        await connection.close()


@pytest.mark.parametrize("run", [1, 2])
async def test_every_test_gets_a_migrated_database_of_its_own(database_url: str, run: int) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("CREATE TABLE left_behind (run int)")
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") > 1
    finally:
        await connection.close()
