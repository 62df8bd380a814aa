"""Scripts are tested on the session's server, and on Redis 7.0 too where TOLLGATE_TEST_REDIS_SERVER or PATH has one."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from gateway.adapters.redis.credits import Credits
from gateway.adapters.redis.link import RedisLink
from gateway.adapters.redis.scripts import Scripts
from gateway.resources import shipped

REDIS_SERVER = os.environ.get("TOLLGATE_TEST_REDIS_SERVER") or shutil.which("redis-server")


@pytest.fixture(scope="session", params=["default", *(["redis-server"] if REDIS_SERVER else [])])
def redis_server_url(
    request: pytest.FixtureRequest, redis_server_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    if request.param == "default":
        yield redis_server_url
        return
    assert REDIS_SERVER is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis-server")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no"]
    with subprocess.Popen([REDIS_SERVER, *options], stdout=subprocess.DEVNULL) as server:
        url = f"redis://127.0.0.1:{port}/0"
        with Redis.from_url(url, retry=Retry(ConstantBackoff(0.02), 200)) as client:
            client.ping()
        yield url
        server.terminate()


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[RedisLink]:
    link = RedisLink(redis_url, command_timeout_ms=2000)
    await link.open()
    yield link
    await link.close()


@pytest.fixture
async def credits(link: RedisLink) -> Credits:
    """Credits on 64 shards that have just been rebuilt under epoch 1."""
    credits = Credits(link, Scripts(shipped("lua")), lease_ms=60_000, refusal_ttl_ms=60_000, tombstone_ttl_ms=900_000)
    await asyncio.gather(*(credits.rebuild(shard, 1, 0, 0) for shard in range(64)))
    return credits
