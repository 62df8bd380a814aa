"""`python -m bench.exports`: a ledger of a million lines is exported by the command and over HTTP; how fast, and in how
much memory, beside what the same processes take for the few lines of an account that has just been opened.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import psutil

from bench.machine import commit, this_machine
from bench.processes import BenchError, Children, free_port, rss_bytes
from bench.stores import Stores
from bench.tollgate import Tollgate, start_tollgate

LINES, ROUNDS = 1_000_000, 3
CHUNK_BYTES = 65_536
SLOW_CLIENT_S = 5.0
SAMPLE_S = 0.02
LAYOUTS = ("lines", "csv", "beancount")


class Export(NamedTuple):
    lines: int
    bytes: int
    seconds: float
    peak_rss: int


def by_command(tollgate: Tollgate, layout: str, out: Path) -> Export:
    """`tollgate books export` as a process of its own."""
    today = datetime.now(UTC).date()
    command = [sys.executable, "-m", "gateway", "books", "export", "--format", layout, "--out", str(out)]
    command += ["--from", str(today - timedelta(days=1)), "--to", str(today), "--data", str(tollgate.directory)]
    started_at, peak = time.monotonic(), 0
    with subprocess.Popen(command) as child:
        while child.poll() is None:
            peak = max(peak, rss_now((child.pid,)))
            time.sleep(SAMPLE_S)
    if child.returncode:
        raise BenchError(f"books export --format {layout} ended with status {child.returncode}")
    seconds = time.monotonic() - started_at
    with out.open("rb") as file:
        lines = sum(1 for _ in file)
    return Export(lines, out.stat().st_size, seconds, peak)


def rss_now(pids: tuple[int, ...]) -> int:
    try:
        return rss_bytes(pids)
    except psutil.NoSuchProcess:  # it has just ended
        return 0


def over_http(tollgate: Tollgate) -> Export:
    """`GET /billing/ledger/export.csv`, read as fast as it comes; the memory is the gateway's."""
    url = f"http://127.0.0.1:{tollgate.target.port}/billing/ledger/export.csv"
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {tollgate.target.keys[0]}"})
    started_at, peak, lines, size = time.monotonic(), 0, 0, 0
    with urllib.request.urlopen(asked) as answer:
        while chunk := answer.read(CHUNK_BYTES):
            lines += chunk.count(b"\n")
            size += len(chunk)
            peak = max(peak, rss_bytes(tollgate.target.pids))
    return Export(lines, size, time.monotonic() - started_at, peak)


def to_a_client_that_waits(tollgate: Tollgate) -> Export:
    """The same to a client that asks and reads nothing for a while: the gateway must not gather it meanwhile."""
    key = tollgate.target.keys[0]
    head = f"GET /billing/ledger/export.csv HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n"
    peak = 0
    with socket.create_connection(("127.0.0.1", tollgate.target.port)) as client:
        client.sendall(head.encode())
        started_at = time.monotonic()
        while time.monotonic() - started_at < SLOW_CLIENT_S:
            peak = max(peak, rss_bytes(tollgate.target.pids))
            time.sleep(SAMPLE_S)
    return Export(0, 0, SLOW_CLIENT_S, peak)


def table(rows: Iterable[tuple[str, Export, list[Export]]]) -> str:
    """`rows`: what is exported, with few lines, and each round with many."""
    lines = [
        "| export | lines written | MB | seconds | peak RSS, MB | with few lines, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, few, many in rows:
        is_read = many[0].lines > 0
        cells = [
            f"{many[0].lines:,}" if is_read else "–",
            f"{many[0].bytes / 1e6:.1f}" if is_read else "–",
            _spread([each.seconds for each in many], "{:.1f}"),
            _spread([each.peak_rss / 1e6 for each in many], "{:.1f}"),
            f"{few.peak_rss / 1e6:.1f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(figures: list[float], shape: str) -> str:
    """The median, with the least and the most."""
    median, least, most = (shape.format(each) for each in (statistics.median(figures), min(figures), max(figures)))
    return f"{median} ({least}–{most})"


def measure(lines: int, rounds: int, directory: Path) -> str:
    # The lines are put there, not posted: nothing is to be sealed meanwhile.
    os.environ["TOLLGATE_WORKERS__SEAL_MS"] = "86400000"
    with Children(directory / "logs") as children:
        tollgate = start_tollgate(children, free_port(), directory / "data")
        out = directory / "export"
        ways: dict[str, Callable[[], Export]] = {
            "`GET /billing/ledger/export.csv`": lambda: over_http(tollgate),
            f"the same, unread for {SLOW_CLIENT_S:.0f} s": lambda: to_a_client_that_waits(tollgate),
            **{f"`books export --format {each}`": _command(tollgate, each, out) for each in LAYOUTS},
        }
        few = {name: way() for name, way in ways.items()}
        with Stores(tollgate.redis_url, tollgate.database_url) as stores:
            print(f"putting {lines:,} captures of one account into the ledger", file=sys.stderr)
            (account_id,) = stores.accounts_of(tollgate.target.keys[:1])
            stores.add_lines(account_id, lines)
        many: dict[str, list[Export]] = {name: [] for name in ways}
        for number in range(rounds):
            for name, way in ways.items():
                many[name].append(made := way())
                print(f"round {number + 1}: {name}: {made}", file=sys.stderr)  # a later step may fail
    return table((name, few[name], many[name]) for name in ways)


def _command(tollgate: Tollgate, layout: str, out: Path) -> Callable[[], Export]:
    return lambda: by_command(tollgate, layout, out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.exports", description=__doc__)
    parser.add_argument("--lines", type=int, default=LINES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=Path("bench/out/exports"))
    given = parser.parse_args()
    machine = this_machine()
    head = f"{machine.cpu}, {machine.cores} cores, {machine.busy_percent:.0f} % busy with other work before the run. "
    head += f"Commit {commit()}. Rounds: {given.rounds}, interleaved."
    made = measure(given.lines, given.rounds, given.out.absolute())
    print(f"{head}\n\n{made}")


if __name__ == "__main__":
    main()
