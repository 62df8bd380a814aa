"""One store's process and its home directory: who it runs as, its port and password, its log, its life and its end.

Never blocks the event loop longer than a fork takes, and never leaves a process behind: on Linux the kernel ends the
children when the thread that started them dies, so `start` is called on the thread that lives as long as the program.
"""

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from gateway.sandbox import child
from gateway.sandbox.errors import SandboxError
from gateway.sandbox.files import FileLock, make_private_directory, write_private

POLL_INTERVAL_S = 0.01
START_TIMEOUT_S = 60.0
LEFTOVER_TIMEOUT_S = 15.0
LOG_TAIL_BYTES_MAX = 16_384
LOG_BYTES_MAX = 8_000_000

# Below the ranges from which systems take ports for outgoing connections, so a remembered port stays free.
PORT_MIN, PORT_MAX = 15_000, 32_000
PORT_TRIES = 50

_ENVIRONMENT_KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Connection(msgspec.Struct, frozen=True):
    """What a store keeps over restarts, in a 0600 file of its home."""

    password: str
    port: int


class StoreHome:
    """The private directory of one store."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.log = self.directory / "server.log"
        self.lock = FileLock(self.directory / "server.lock")
        self._connection_file = self.directory / "connection.json"

    def open(self) -> Connection:
        """Create what is missing; returns the kept connection, its port exchanged if another program has it now."""
        make_private_directory(self.directory)
        try:
            kept = msgspec.json.decode(self._connection_file.read_bytes(), type=Connection)
        except FileNotFoundError:
            return self.keep(Connection(password=secrets.token_urlsafe(32), port=free_port()))
        except (msgspec.DecodeError, OSError) as error:
            raise SandboxError(
                f"{self._connection_file} cannot be read ({error}); restore it or choose another --data directory."
            ) from error
        return kept if is_free(kept.port) else self.with_another_port(kept)

    def with_another_port(self, connection: Connection) -> Connection:
        return self.keep(Connection(connection.password, free_port()))

    def keep(self, connection: Connection) -> Connection:
        write_private(self._connection_file, msgspec.json.encode(connection))
        return connection


class ServerProcess:
    """A store's server: started once, watched, stopped once."""

    def __init__(self, home: StoreHome, *, name: str, identity: str, stop_signals: Sequence[signal.Signals]) -> None:
        self.name = name
        self._home = home
        self._identity = identity
        self._stop_signals = stop_signals
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    async def start(self, command: Sequence[str | Path], *, stdin: bytes = b"") -> None:
        """Spawn `command` once nothing of an earlier run is left in the home."""
        await self._wait_for_leftovers()
        try:
            self._log_start = _open_end(self._home.log)
            self._process = spawn(
                command, self._home, identity=self._identity, death_signal=self._stop_signals[0], stdin=stdin
            )
            self._home.lock.name_holder(self._process.pid)
        finally:
            self._home.lock.release()

    async def _wait_for_leftovers(self) -> None:
        """Take the store's lock, which every process of the store holds; ask those of a killed parent to end."""
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        asked = False
        while not self._home.lock.acquire():
            waited_s = loop.time() - started_at
            pid = self._home.lock.holder()
            if waited_s > LEFTOVER_TIMEOUT_S:
                raise SandboxError(
                    f"{self.name} of an earlier run is still using {self._home.directory} (pid {pid or 'unknown'}); "
                    "end that process and start again."
                )
            if waited_s > 1.0 and pid is not None and not asked:
                asked = True
                _signal_if_ours(pid, self._stop_signals[0])
            await asyncio.sleep(POLL_INTERVAL_S)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def wait(self) -> int:
        """Wait until the server has ended; returns its exit status."""
        assert self._process is not None, "the server was never started"
        while (status := self._process.poll()) is None:  # noqa: ASYNC110  (nothing portable signals a process' end)
            await asyncio.sleep(POLL_INTERVAL_S)
        return status

    async def stop(self, step_timeout_s: float = 10.0) -> None:
        """End the server by its stop signals, politest first, each with its time, and SIGKILL at last."""
        if self._process is None:
            return
        try:
            for stop_signal in self._stop_signals:
                if not self.alive():
                    return
                self._process.send_signal(stop_signal)
                try:
                    await asyncio.wait_for(self.wait(), step_timeout_s)
                except TimeoutError:
                    continue
        finally:
            self.kill()

    def kill(self) -> None:
        """End the server now. What it had acknowledged as durable is still there at the next start."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def log_tail(self) -> str:
        """What the server has logged since it was started, at most the last LOG_TAIL_BYTES_MAX bytes."""
        return log_tail(self._home.log, self._log_start)

    def last_words(self) -> str:
        """The log line that most likely says why the server ended."""
        return last_words(self.log_tail())


def spawn(
    command: Sequence[str | Path],
    home: StoreHome,
    *,
    identity: str,
    death_signal: signal.Signals,
    stdin: bytes = b"",
) -> subprocess.Popen[bytes]:
    """Start `command` as a child that dies with this thread, holds the home's lock and logs into the home."""
    launch = [sys.executable, "-I", "-S", child.__file__, str(os.getpid()), str(int(death_signal)), identity]
    with home.log.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603
            [*launch, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=home.directory,
            env=_environment(os.environ),
            pass_fds=(home.lock.descriptor,),
            start_new_session=True,  # Ctrl-C reaches the parent alone, which stops its stores in order
        )
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            pipe.write(stdin)
    except BrokenPipeError:
        pass  # it ended before it read; its exit status and log say why
    return process


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The little a store needs: none of the program's secrets, no PG… variable, and messages in English."""
    return {key: environment[key] for key in _ENVIRONMENT_KEPT if key in environment} | {"LC_ALL": "C", "TZ": "UTC"}


def identity_for(directory: Path) -> str:
    """Who a store runs as that must not be root: see `child`. Gives `directory` to NOBODY if nothing else works."""
    if os.geteuid() != 0:
        return child.SAME
    owner = directory.stat()
    if owner.st_uid != 0:
        return f"{owner.st_uid}:{owner.st_gid}"
    if sys.platform == "linux" and _namespaces_are_permitted():
        return child.NAMESPACE
    for path in (directory, *directory.rglob("*")):
        os.chown(path, child.NOBODY, child.NOBODY, follow_symlinks=False)
    return f"{child.NOBODY}:{child.NOBODY}"


def _namespaces_are_permitted() -> bool:
    launch = [sys.executable, "-I", "-S", child.__file__, str(os.getpid()), "0", child.NAMESPACE, "/bin/true"]
    return subprocess.run(launch, capture_output=True, check=False).returncode == 0  # noqa: S603


def _signal_if_ours(pid: int, wanted: signal.Signals) -> None:
    try:
        os.kill(pid, wanted)
    except (ProcessLookupError, PermissionError):
        pass  # already gone, or not ours: the wait that follows ends with a plain message


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the stores do: TIME_WAIT is no obstacle
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    for _ in range(PORT_TRIES):
        port = PORT_MIN + secrets.randbelow(PORT_MAX - PORT_MIN)
        if is_free(port):
            return port
    raise SandboxError(f"No free port between {PORT_MIN} and {PORT_MAX} on 127.0.0.1; free one and start again.")


def _open_end(log: Path) -> int:
    """The log's size; a log grown too large is put aside first, one generation."""
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return 0
    if size < LOG_BYTES_MAX:
        return size
    log.replace(log.with_name(f"{log.name}.1"))
    return 0


def log_tail(log: Path, start: int) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES_MAX))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def last_words(tail: str) -> str:
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "rror", "cannot", "ailed"))]
    return (telling or lines or ["it logged nothing"])[-1]
