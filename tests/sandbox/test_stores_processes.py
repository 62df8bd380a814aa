"""The embedded stores as processes: whose they are, what others can see of them, and that none outlives its parent."""

import asyncio
import json
import os
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

import gateway
from gateway.sandbox import child
from gateway.sandbox.errors import SandboxError
from gateway.sandbox.files import FileLock
from gateway.sandbox.identity import choose_identity, require_reachable
from gateway.sandbox.stores import Stores
from tests.patience import PATIENCE_S

OWNER = [sys.executable, str(Path(__file__).with_name("owner.py"))]


@asynccontextmanager
async def owner(directory: Path, *, prefix: Sequence[str] = ()) -> AsyncIterator[tuple[Process, dict[str, Any]]]:
    """A process that runs stores on `directory`, and the line it says once they run."""
    environment = os.environ | {"PYTHONPATH": str(Path(gateway.__file__).parents[1])}
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *OWNER,
        str(directory),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, json.loads(await process.stdout.readline())
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), PATIENCE_S)


async def released(lock_file: Path) -> None:
    """Return once no process of the store is left: the kernel frees the lock with the last one."""
    lock = FileLock(lock_file)
    async with asyncio.timeout(PATIENCE_S):
        while lock.is_held():
            await asyncio.sleep(0.01)


async def test_the_stores_die_with_a_killed_parent_and_start_again_with_their_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with owner(data) as (process, said):
        connection = await asyncpg.connect(said["database_url"])
        await connection.execute("CREATE TABLE kept AS SELECT 5 AS number")
        await connection.close()
        async with Redis.from_url(said["redis_url"]) as redis:
            await redis.set("kept", 5)
        process.kill()
        await process.wait()
    await released(data / "postgres" / "server.lock")
    await released(data / "redis" / "server.lock")
    async with Stores(data, durable=False) as stores:
        assert (stores.database_url, stores.redis_url) == (said["database_url"], said["redis_url"])
        connection = await asyncpg.connect(stores.database_url)
        assert await connection.fetchval("SELECT number FROM kept") == 5
        await connection.close()
        async with Redis.from_url(stores.redis_url) as redis:
            assert await redis.get("kept") == b"5"


async def test_a_start_right_after_a_kill_waits_for_the_dying_servers(tmp_path: Path) -> None:
    async with owner(tmp_path / "data") as (process, _):
        process.kill()
        await process.wait()
        async with Stores(tmp_path / "data", durable=False) as stores:
            assert stores.postgres.alive()


async def test_an_owner_that_ends_in_order_leaves_nothing_running(tmp_path: Path) -> None:
    async with owner(tmp_path / "data") as (process, _):
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    for store in ("postgres", "redis"):
        assert not FileLock(tmp_path / "data" / store / "server.lock").is_held()


async def test_a_second_program_on_the_directory_is_told_who_holds_it(tmp_path: Path) -> None:
    async with owner(tmp_path / "data") as (first, _), owner(tmp_path / "data") as (_, said):
        assert f"is in use by another Tollgate, pid {first.pid}; stop it (kill {first.pid})" in said["error"]


async def test_an_ordinary_user_runs_the_stores(tmp_path: Path) -> None:
    """Root becomes ordinary for this; who is ordinary already starts the stores as they are."""
    identity = choose_identity(tmp_path)
    prefix = [sys.executable, "-I", "-S", child.__file__, str(os.getpid()), "9", identity]
    async with owner(tmp_path / "data", prefix=prefix) as (_, said):
        assert "error" not in said
        assert said["uid"] != 0


async def test_no_password_shows_in_a_command_line_or_environment(tmp_path: Path) -> None:
    async with Stores(tmp_path / "data", durable=False) as stores:
        passwords = [urlsplit(url).password or "" for url in (stores.database_url, stores.redis_url)]
        visible = b"".join(
            (entry / name).read_bytes()
            for entry in (Path("/proc", str(pid)) for pid in (stores.postgres.pid, stores.redis.pid))
            for name in ("cmdline", "environ")
        )
    assert b"postgres" in visible
    assert all(len(password) > 40 and password.encode() not in visible for password in passwords)


def test_a_folder_that_nobody_can_enter_is_named_with_the_ways_out(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(SandboxError, match=r"who cannot enter .*; run Tollgate as an ordinary user, or set TOLLGATE_"):
        require_reachable(closed / "bin" / "postgres")


def test_a_child_whose_parent_is_gone_already_never_starts(tmp_path: Path) -> None:
    not_our_pid = str(os.getpid() + 1)
    launch = [sys.executable, "-I", "-S", child.__file__, not_our_pid, "9", child.SAME, "/bin/touch", "started"]
    assert subprocess.run(launch, cwd=tmp_path, check=False).returncode == child.IDENTITY_REFUSED
    assert not (tmp_path / "started").exists()
