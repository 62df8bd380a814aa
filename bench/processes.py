"""Every process of a bench run: started here, measured by pid, and ended by pid when the run ends, however it ends."""

import contextlib
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.02
OPEN_FILES_WANTED = 65_536


class BenchError(Exception):
    """The bench cannot go on."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Children:
    """The children of one run, and a log file for each in `log_directory`."""

    def __init__(self, log_directory: Path) -> None:
        self._log_directory = log_directory
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._log_directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._running):
            stop(child)

    def start(
        self, name: str, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, pipes: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start `command`; with `pipes`, its stdin and stdout are ours, else its output goes to the log."""
        with self.log_of(name).open("wb") as log:
            child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else log,
                stderr=log,
                env=os.environ | (env or {}),
            )
        self._running.append(child)
        return child

    def start_server(
        self,
        name: str,
        command: Sequence[str | Path],
        port: int,
        *,
        env: Mapping[str, str] | None = None,
        timeout_s: float = READY_TIMEOUT_S,
    ) -> subprocess.Popen[bytes]:
        """Start `command` and wait until it accepts connections on `port`."""
        child = self.start(name, command, env=env)
        give_up_at = time.monotonic() + timeout_s
        while not _accepts(port):
            if child.poll() is not None or time.monotonic() > give_up_at:
                raise BenchError(f"{name} did not come up on port {port}: see {self.log_of(name)}")
            time.sleep(POLL_INTERVAL_S)
        return child

    def log_of(self, name: str) -> Path:
        return self._log_directory / f"{name}.log"


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a child and what it started, kindly and then not."""
    try:
        family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        child.wait()
        return
    child.terminate()
    _, alive = psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by now
            process.kill()
    child.wait()


def tree(pid: int) -> tuple[int, ...]:
    """A process and all it started."""
    return (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True)))


def cpu_s(pids: Iterable[int]) -> float:
    """CPU time that `pids` have used so far, in all their threads, user and system."""
    return sum(_cpu_s_exactly(pid) or _cpu_s_in_ticks(pid) for pid in pids)


def _cpu_s_exactly(pid: int) -> float | None:
    """By Linux' scheduler, in nanoseconds, of the threads that live; None where there is no such count."""
    try:
        threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    except OSError:
        return None
    return sum(int(thread.split()[0]) for thread in threads) / 1e9


def _cpu_s_in_ticks(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0  # a backend that went away; a gateway's death shows in its answers
    return float(times.user + times.system)


def rss_bytes(pids: Iterable[int]) -> int:
    return sum(int(psutil.Process(pid).memory_info().rss) for pid in pids)


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional memory (shared pages divided by their sharers); unique memory where a system has none."""
    figures = [psutil.Process(pid).memory_full_info() for pid in pids]
    return sum(int(getattr(figure, "pss", figure.uss)) for figure in figures)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def lift_file_limit() -> int:
    """Let this process and its future children open as many files as the system allows; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, OPEN_FILES_WANTED), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        except (ValueError, OSError):
            continue
        return limit
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
