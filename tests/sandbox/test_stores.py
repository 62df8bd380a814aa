"""Both embedded stores on one data directory: what they keep, what they refuse, how they come back."""

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from gateway.sandbox.errors import SandboxError
from gateway.sandbox.files import FileLock
from gateway.sandbox.postgres import EmbeddedPostgres, find_binaries
from gateway.sandbox.stores import DataDirectory, Stores, read_state, write_state
from gateway.sandbox.valkey import EmbeddedRedis, find_server
from tests.patience import PATIENCE_S


@asynccontextmanager
async def database(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def write_five(stores: Stores) -> None:
    async with database(stores.database_url) as postgres, Redis.from_url(stores.redis_url) as redis:
        await postgres.execute("CREATE TABLE kept AS SELECT 5 AS number")
        await redis.set("kept", 5)


async def read_five(stores: Stores) -> None:
    async with database(stores.database_url) as postgres, Redis.from_url(stores.redis_url) as redis:
        assert await postgres.fetchval("SELECT number FROM kept") == 5
        assert await redis.get("kept") == b"5"


async def test_a_clean_restart_keeps_data_ports_and_passwords(tmp_path: Path) -> None:
    async with Stores(tmp_path / "data") as stores:
        await write_five(stores)
        urls = stores.database_url, stores.redis_url
    assert not stores.postgres.alive()
    assert not stores.redis.alive()
    async with Stores(tmp_path / "data") as again:
        assert (again.database_url, again.redis_url) == urls
        await read_five(again)


async def test_what_was_acknowledged_survives_a_kill_of_both_servers(tmp_path: Path) -> None:
    stores = Stores(tmp_path / "data")
    async with stores:
        await write_five(stores)
        stores.postgres.kill()
        stores.redis.kill()
        await asyncio.gather(stores.postgres.start(), stores.redis.start())
        await read_five(stores)


async def test_a_store_that_dies_is_started_again_on_the_same_url(tmp_path: Path) -> None:
    restarts: asyncio.Queue[str] = asyncio.Queue()
    async with Stores(tmp_path / "data", durable=False) as stores:
        await write_five(stores)
        urls = stores.database_url, stores.redis_url
        supervision = asyncio.create_task(stores.supervise(restarts.put_nowait))
        stores.postgres.kill()
        assert await restarts.get() == "PostgreSQL ended with status -9 and is started again"
        stores.redis.kill()
        assert await restarts.get() == "Redis ended with status -9 and is started again"
        async with asyncio.timeout(PATIENCE_S):
            while not await answers(stores):
                await asyncio.sleep(0.01)
        assert (stores.database_url, stores.redis_url) == urls
        await read_five(stores)
        supervision.cancel()
        with pytest.raises(asyncio.CancelledError):
            await supervision


async def answers(stores: Stores) -> bool:
    try:
        await read_five(stores)
    except (OSError, RedisError, asyncpg.PostgresError):
        return False
    return True


async def test_a_directory_in_use_is_refused_in_one_line(tmp_path: Path) -> None:
    claimed = DataDirectory(tmp_path / "data")
    await claimed.claim()
    with pytest.raises(SandboxError) as refusal:
        await Stores(tmp_path / "data").start()
    claimed.release()
    message = str(refusal.value)
    assert message.startswith(f"{tmp_path / 'data'} is in use by another Tollgate, pid ")
    assert "choose another --data directory" in message
    assert "\n" not in message


async def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    tmp_path.chmod(0o755)
    with pytest.raises(SandboxError, match="holds other files"):
        await Stores(tmp_path).start()
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


async def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(SandboxError, match=r"Cannot create .*data"):
        await Stores(tmp_path / "data").start()


async def test_another_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tollgate.json").write_text('{"layout": 99}')
    with pytest.raises(SandboxError, match="has data layout 99, this Tollgate writes layout 1; use the Tollgate that"):
        await Stores(tmp_path).start()


async def test_another_postgres_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pg16").mkdir()
    (tmp_path / "pg16" / "PG_VERSION").write_text("16\n")
    with pytest.raises(SandboxError, match="was written by PostgreSQL 16, this is PostgreSQL 18; choose another"):
        await EmbeddedPostgres(tmp_path).start()


async def test_a_lost_password_file_is_named(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path, durable=False)
    await postgres.start()
    await postgres.stop()
    (tmp_path / "connection.json").unlink()
    with pytest.raises(SandboxError, match=r"another password than connection\.json"):
        await EmbeddedPostgres(tmp_path, durable=False).start()


async def test_a_damaged_append_only_file_is_told_with_the_server_s_reason(tmp_path: Path) -> None:
    redis = EmbeddedRedis(tmp_path)
    await redis.start()
    await redis.stop()
    for file in (tmp_path / "appendonlydir").glob("*.incr.aof"):
        file.write_bytes(b"not a command\r\n" * 10)
    with pytest.raises(SandboxError, match=r"Redis did not start: .*(AOF|format).*server\.log"):
        await EmbeddedRedis(tmp_path).start()


@pytest.mark.parametrize("store", [EmbeddedPostgres, EmbeddedRedis])
async def test_a_remembered_port_that_is_taken_is_exchanged(
    tmp_path: Path, store: type[EmbeddedPostgres] | type[EmbeddedRedis]
) -> None:
    first = store(tmp_path, durable=False)
    await first.start()
    await first.stop()
    with socket.create_server(("127.0.0.1", port_of(first.url))):
        second = store(tmp_path, durable=False)
        await second.start()
        await second.stop()
    assert port_of(second.url) != port_of(first.url)


@pytest.mark.parametrize("store", [EmbeddedPostgres, EmbeddedRedis])
async def test_a_running_store_never_moves_to_another_port(
    tmp_path: Path, store: type[EmbeddedPostgres] | type[EmbeddedRedis]
) -> None:
    started = store(tmp_path, durable=False)
    await started.start()
    started.kill()
    with socket.create_server(("127.0.0.1", port_of(started.url))) as squatter:
        squatter.listen()
        with pytest.raises(SandboxError, match=rf"Port {port_of(started.url)} of \w+ is taken by another program"):
            await started.start()
    assert not started.alive()


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


async def test_nobody_enters_without_the_password(tmp_path: Path) -> None:
    async with Stores(tmp_path / "data", durable=False) as stores:
        database_port, redis_port = port_of(stores.database_url), port_of(stores.redis_url)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://postgres:guess@127.0.0.1:{database_port}/tollgate")
        async with Redis(port=redis_port, protocol=2, retry=Retry(NoBackoff(), 0)) as stranger:
            with pytest.raises(AuthenticationError, match="Authentication required"):
                await stranger.ping()


async def test_only_the_owner_may_read_what_is_kept(tmp_path: Path) -> None:
    async with Stores(tmp_path / "data", durable=False) as stores:
        write_state(tmp_path / "data", {"database_url": stores.database_url})
        paths = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
        assert [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


async def test_the_state_is_readable_only_while_its_writer_runs(tmp_path: Path) -> None:
    assert read_state(tmp_path / "nothing") is None
    state = {"base_url": "http://127.0.0.1:1/v1", "ops_url": "http://127.0.0.1:2"}
    directory = DataDirectory(tmp_path / "data")
    await directory.claim()
    assert read_state(tmp_path / "data") is None
    write_state(tmp_path / "data", state)
    assert read_state(tmp_path / "data") == state
    directory.release()
    assert read_state(tmp_path / "data") is None


def test_a_state_that_a_killed_program_left_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "up.lock").write_text("1\n")
    write_state(tmp_path, {"base_url": "http://127.0.0.1:1/v1"})
    assert read_state(tmp_path) is None
    lock = FileLock(tmp_path / "up.lock")
    assert lock.acquire()
    assert read_state(tmp_path) is not None
    lock.release()


async def test_the_servers_are_set_up_for_money(tmp_path: Path) -> None:
    async with (
        Stores(tmp_path / "data") as stores,
        database(stores.database_url) as postgres,
        Redis.from_url(stores.redis_url) as redis,
    ):
        assert await postgres.fetchval("SHOW fsync") == "on"
        assert await postgres.fetchval("SHOW synchronous_commit") == "on"
        assert await postgres.fetchval("SHOW listen_addresses") == "127.0.0.1"
        settings = await redis.config_get("appendonly", "appendfsync", "maxmemory-policy", "save", "bind")
        assert settings == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "bind": "127.0.0.1",
        }


def test_a_missing_postgres_names_the_variable_to_set() -> None:
    with pytest.raises(SandboxError, match="set TOLLGATE_DATABASE_URL to a PostgreSQL database instead"):
        find_binaries("a_package_that_is_not_installed")


def test_a_missing_redis_names_the_variable_to_set(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="set TOLLGATE_REDIS_URL to a Redis server instead"):
        find_server("a_package_that_is_not_installed", search_path=str(tmp_path))


def test_without_the_wheel_a_server_on_the_path_is_used(tmp_path: Path) -> None:
    server = tmp_path / "redis-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o700)
    assert find_server("a_package_that_is_not_installed", search_path=str(tmp_path)) == server


def test_a_failed_start_leaves_no_half_made_cluster_in_place(tmp_path: Path) -> None:
    (tmp_path / "connection.json").write_text(json.dumps({"password": "has a space", "port": 1}))
    with pytest.raises(SandboxError, match=r"connection\.json is damaged"):
        asyncio.run(EmbeddedPostgres(tmp_path).start())
    assert not (tmp_path / "pg18").exists()
