"""Starts a whole Tollgate (`tollgate up`: embedded stores, one gateway process, workers) against the bench's upstream,
with funded accounts. Knows the gateway only by its command line and the line it prints when it is ready."""

import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import msgspec
import psutil

from bench.processes import BenchError, Children, free_port
from bench.target import Kind, Target

READY_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 300.0  # an audit of a million accounts
ACCOUNTS, CREDITS_EACH = 4, 10_000_000
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

    def postgres_pids(self) -> tuple[int, ...]:
        """The postmaster and its backends at this moment: connections come and go."""
        family = psutil.Process(self.up.pid).children(recursive=True)
        return tuple(child.pid for child in family if child.name() == "postgres")

    def audit(self) -> str:
        """What is wrong with the books, or nothing."""
        try:
            _command(self.directory, "audit")
        except BenchError as error:
            return str(error)
        return ""


def start_tollgate(
    children: Children, upstream_port: int, directory: Path, name: str = "tollgate", *, workers: int = 1
) -> Tollgate:
    """Start on an emptied `directory`; ready when every account has its credits and its key."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    port, ops_port = free_port(), free_port()
    listen = ("--listen", f"127.0.0.1:{port}", "--ops-listen", f"127.0.0.1:{ops_port}")
    where = ("--data", str(directory), "--upstream", f"http://127.0.0.1:{upstream_port}", "--workers", str(workers))
    env = {"OPENAI_API_KEY": "sk-upstream-bench"}
    child = children.start(name, [*_TOLLGATE, "up", "--json", *listen, *where], env=env, pipes=True)
    assert child.stdout is not None
    line = _first_line(child.stdout, READY_TIMEOUT_S)
    if not line:
        raise BenchError(f"tollgate did not get ready: see {children.log_of(name)}")
    ready = msgspec.json.decode(line, type=Ready)
    with ThreadPoolExecutor(max_workers=2) as pool:
        keys = tuple(pool.map(lambda index: _funded_key(directory, f"bench-{index}"), range(ACCOUNTS)))
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
    )


def _first_line(stream: IO[bytes], timeout_s: float) -> bytes:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        give_up_at = time.monotonic() + timeout_s
        while (left_s := give_up_at - time.monotonic()) > 0:
            if selector.select(left_s):
                return stream.readline()
    return b""


def _funded_key(directory: Path, account: str) -> str:
    _command(directory, "accounts", "create", account)
    _command(directory, "accounts", "grant", account, str(CREDITS_EACH), "--reason", "bench")
    key = _command(directory, "keys", "issue", account)["key"]
    assert isinstance(key, str)
    return key


def _command(directory: Path, *arguments: str) -> dict[str, object]:
    command: Sequence[str] = [*_TOLLGATE, *arguments, "--json", "--data", str(directory)]
    ended = subprocess.run(command, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
    if ended.returncode:
        raise BenchError(f"{' '.join(command)} ended with {ended.returncode}: {ended.stderr.decode()[-500:]}")
    try:
        return msgspec.json.decode(ended.stdout, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise BenchError(f"{' '.join(command)} printed {ended.stdout.decode()[-500:]!r}: {error}") from error


def _named(ready: Ready, up_pid: int, role: str) -> tuple[int, ...]:
    """The processes of a role: as `up` names them, else those with the role's word on their command line."""
    if ready.processes:
        return tuple(pid for name, pid in ready.processes.items() if name.split("-")[0] == role)
    return tuple(child.pid for child in psutil.Process(up_pid).children(recursive=True) if role in child.cmdline())
