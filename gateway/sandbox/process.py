"""One server process of a store: spawned, watched and ended.

Never blocks the event loop longer than a spawn takes, and never leaves a process behind: on Linux the kernel ends the
children when the thread that started them ends, so they are started on a thread that lives as long as the program.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.sandbox import child
from gateway.sandbox.errors import SandboxError
from gateway.sandbox.home import StoreHome

POLL_INTERVAL_S = 0.01
STOP_STEP_TIMEOUT_S = 10.0
LEFTOVER_GRACE_S = 1.0
LEFTOVER_TIMEOUT_S = 15.0
LOG_TAIL_BYTES_MAX = 16_384
LOG_BYTES_MAX = 8_000_000

_ENVIRONMENT_KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class ServerProcess:
    """A server: started once, stopped once. `stop_signals` end it, politest first."""

    def __init__(self, name: str, home: StoreHome, identity: str, stop_signals: Sequence[signal.Signals]) -> None:
        self._name = name
        self._home = home
        self._identity = identity
        self._stop_signals = stop_signals
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    async def start(self, command: Sequence[str | Path], *, stdin: bytes = b"", stale: Path | None = None) -> None:
        """Spawn `command` once nothing of an earlier run is alive in the home; removes its `stale` file before."""
        await self._wait_for_leftovers()
        try:
            self._process = self._spawn(command, stdin, stale)
            self._home.lock.name_holder(self._process.pid)
        finally:
            self._home.lock.release()  # our side of it: the server and its children hold theirs

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
                    f"{self._name} of an earlier run is still using {self._home.directory} (pid {pid or 'unknown'}); "
                    "end that process and start again."
                )
            if waited_s > LEFTOVER_GRACE_S and pid is not None and not asked:
                asked = True
                _ask_to_end(pid, self._stop_signals[0])
            await asyncio.sleep(POLL_INTERVAL_S)

    def _spawn(self, command: Sequence[str | Path], stdin: bytes, stale: Path | None) -> subprocess.Popen[bytes]:
        """Start `command` as a child that dies with this thread, holds the home's lock and logs into the home."""
        launch = [sys.executable, "-I", "-S", child.__file__, str(os.getpid())]
        launch += [str(int(self._stop_signals[0])), self._identity]
        if stale is not None:
            stale.unlink(missing_ok=True)
        self._log_start = _roll(self._home.log)
        with open(self._home.log, "ab", opener=_open_private) as log:
            process = subprocess.Popen(  # noqa: S603
                [*launch, *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._home.directory,
                env=_environment(os.environ),
                pass_fds=(self._home.lock.descriptor,),
                start_new_session=True,  # Ctrl-C reaches the parent alone, which stops its stores in order
            )
        assert process.stdin is not None
        try:
            with process.stdin as pipe:
                pipe.write(stdin)
        except BrokenPipeError:
            pass  # it ended before it read; its exit status and log say why
        return process

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def wait(self) -> int:
        """Wait until the server has ended; returns its exit status, negative for the signal that ended it."""
        assert self._process is not None, "the server was never started"
        while (status := self._process.poll()) is None:  # noqa: ASYNC110  (nothing portable signals a process' end)
            await asyncio.sleep(POLL_INTERVAL_S)
        return status

    async def stop(self) -> None:
        """End the server by its stop signals, each with its time, and by SIGKILL at last."""
        try:
            for stop_signal in self._stop_signals:
                if self._process is None or not self.alive():
                    return
                self._process.send_signal(stop_signal)
                try:
                    await asyncio.wait_for(self.wait(), STOP_STEP_TIMEOUT_S)
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
        with self._home.log.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES_MAX))
            return log.read().decode(errors="replace")

    def last_words(self) -> str:
        """The log line that most likely says why the server ended."""
        lines = [line.strip() for line in self.log_tail().splitlines() if line.strip()]
        telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "rror", "annot", "ailed"))]
        return (telling or lines or ["it logged nothing"])[-1]


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The little a store needs: none of the program's secrets, no PG… variable, and messages in English."""
    return {key: environment[key] for key in _ENVIRONMENT_KEPT if key in environment} | {"LC_ALL": "C", "TZ": "UTC"}


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _roll(log: Path) -> int:
    """The log's size; a log grown too large is put aside first, one generation."""
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return 0
    if size < LOG_BYTES_MAX:
        return size
    log.replace(log.with_name(f"{log.name}.1"))
    return 0


def _ask_to_end(pid: int, stop_signal: signal.Signals) -> None:
    try:
        os.kill(pid, stop_signal)
    except (ProcessLookupError, PermissionError):
        pass  # already gone, or not ours: the wait that follows ends with a plain message
