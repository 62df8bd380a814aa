"""A Redis that may lose money is told, with what mends it."""

from collections.abc import AsyncIterator

import pytest

from gateway.adapters.redis.link import RedisLink
from gateway.adapters.redis.settings import weaknesses
from gateway.app.stores import check_redis
from gateway.config import ConfigError, load

SAFE = {b"maxmemory-policy": b"noeviction", b"appendonly": b"yes"}


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[RedisLink]:
    opened = RedisLink(redis_url, command_timeout_ms=3000, pending_commands_max=100, reconnect_backoff_ms_max=50)
    await opened.open()
    before = {name: (await opened.command(b"CONFIG", b"GET", name))[1] for name in SAFE}
    for name, value in SAFE.items():
        await opened.command(b"CONFIG", b"SET", name, value)
    yield opened
    for name, value in before.items():
        await opened.command(b"CONFIG", b"SET", name, value)
    await opened.close()


async def test_a_safe_redis_has_no_weakness(link: RedisLink) -> None:
    assert await weaknesses(link) == []


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [(b"maxmemory-policy", b"allkeys-lru", "noeviction"), (b"appendonly", b"no", "set appendonly to yes")],
)
async def test_each_weakness_names_its_remedy_and_may_stop_the_start(
    link: RedisLink, redis_url: str, name: bytes, value: bytes, remedy: str
) -> None:
    await link.command(b"CONFIG", b"SET", name, value)
    [weakness] = await weaknesses(link)
    assert remedy in weakness
    await check_redis(load(redis_url=redis_url), link)
    with pytest.raises(ConfigError, match=remedy):
        await check_redis(load(redis_url=redis_url, redis={"require_durable": True}), link)
