"""Starts a whole Tollgate (`tollgate up`: embedded stores, one gateway process, workers) against the bench's upstream,
with funded accounts. Knows the gateway by its command line and the line it prints when it is ready."""

import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import msgspec
import psutil

from bench.books import Books
from bench.processes import BenchError, Children, free_port
from bench.target import Kind, Target

READY_TIMEOUT_S = 60.0
AUDIT_TIMEOUT_S = 300.0  # of a million accounts
ACCOUNTS = 32  # as many as connections: they fall into some 25 of the 64 shards, and each shard has its own costs
_TOLLGATE = (sys.executable, "-m", "gateway")


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of `tollgate up --json`. `processes` names its children: `serve-0`, `work`, …"""

    base_url: str
    ops_url: str
    database_url: str
    redis_url: str
    processes: dict[str, int] = {}


class Tollgate(msgspec.Struct, frozen=True, kw_only=True):
    """A running gateway: what is measured, and where its stores and its workers are."""

    target: Target
    directory: Path
    worker_pids: tuple[int, ...]
    up: subprocess.Popen[bytes]
    database_url: str
    redis_url: str
    ops_url: str

    def postgres_pids(self) -> tuple[int, ...]:
        """The postmaster and its backends at this moment: connections come and go."""
        family = psutil.Process(self.up.pid).children(recursive=True)
        return tuple(child.pid for child in family if child.name() == "postgres")

    def order(self, *words: str) -> None:
        """Run a command of Tollgate's on this one."""
        ended = subprocess.run(
            [*_TOLLGATE, *words, "--data", str(self.directory)],
            capture_output=True,
            timeout=READY_TIMEOUT_S,
            check=False,
            text=True,
        )
        if ended.returncode:
            raise BenchError(f"tollgate {' '.join(words)}: {ended.stderr[-500:]}")

    def audit(self) -> str:
        """What is wrong with the books, or nothing."""
        command = [*_TOLLGATE, "audit", "--json", "--data", str(self.directory)]
        ended = subprocess.run(command, capture_output=True, timeout=AUDIT_TIMEOUT_S, check=False, text=True)
        return f"{ended.stdout[-500:]} {ended.stderr[-500:]}" if ended.returncode else ""


def start_tollgate(
    children: Children,
    upstream_port: int,
    directory: Path,
    name: str = "tollgate",
    *,
    workers: int = 1,
    settings: Mapping[str, str] | None = None,
    guarded: bool = False,
) -> Tollgate:
    """Start on an emptied `directory`; ready when every account has its credits and its key.

    With `guarded`, each also has every cap there is.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    port, ops_port = free_port(), free_port()
    listen = ("--listen", f"127.0.0.1:{port}", "--ops-listen", f"127.0.0.1:{ops_port}")
    where = ("--data", str(directory), "--upstream", f"http://127.0.0.1:{upstream_port}", "--workers", str(workers))
    env = {"OPENAI_API_KEY": "sk-upstream-bench"} | dict(settings or {})
    child = children.start(name, [*_TOLLGATE, "up", "--json", *listen, *where], env=env, pipes=True)
    assert child.stdout is not None
    line = first_line(child.stdout, READY_TIMEOUT_S)
    if not line:
        raise BenchError(f"tollgate did not get ready: see {children.log_of(name)}")
    ready = msgspec.json.decode(line, type=Ready)
    books = Books(ready.database_url, ready.redis_url)
    keys = books.add_guarded(ACCOUNTS) if guarded else books.add_callers(ACCOUNTS)
    gateways = _named(ready, child.pid, "serve") or (child.pid,)
    target = Target(
        name="tollgate",
        kind=Kind.TOLLGATE,
        port=urlsplit(ready.base_url).port or port,
        pids=gateways,
        keys=keys,
    )
    return Tollgate(
        target=target,
        directory=directory,
        worker_pids=_named(ready, child.pid, "work"),
        up=child,
        database_url=ready.database_url,
        redis_url=ready.redis_url,
        ops_url=ready.ops_url,
    )


def first_line(stream: IO[bytes], timeout_s: float) -> bytes:
    """What a started Tollgate tells first; b"" if it does not in time."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        give_up_at = time.monotonic() + timeout_s
        while (left_s := give_up_at - time.monotonic()) > 0:
            if selector.select(left_s):
                return stream.readline()
    return b""


def _named(ready: Ready, up_pid: int, role: str) -> tuple[int, ...]:
    """The processes of a role: as `up` names them, else those with the role's word on their command line."""
    if ready.processes:
        return tuple(pid for name, pid in ready.processes.items() if name.split("-")[0] == role)
    return tuple(child.pid for child in psutil.Process(up_pid).children(recursive=True) if role in child.cmdline())
