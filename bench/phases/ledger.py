"""The ledger: how fast a backlog is posted, and whether the books balance after all that load."""

import os
import signal
import time

from bench.phases.bench import Bench
from bench.stores import STAYS_EMPTY_S
from bench.target import Target

BACKLOG_SHARE_MIN = 0.9  # of the calls, that wait when the workers go on: else it was none


def backlog(bench: Bench, target: Target) -> None:
    """Let settlements pile up while the workers are stopped, then time how fast they reach Postgres."""
    stores = bench.stores_of(target)
    if stores is None or bench.tollgate is None:
        return
    workers = bench.tollgate.worker_pids
    if not workers:
        bench.report.note("no worker process was found: ledger rows a second are not measured")
        return
    rows_before = stores.rows()
    _signal(workers, signal.SIGSTOP)
    try:
        calls = bench.plan.backlog_calls
        outcome = bench.loader.counted(target, connections=bench.plan.connections, calls=calls)
        waiting = stores.unposted()
    finally:
        started_at = time.monotonic()
        _signal(workers, signal.SIGCONT)
    stores.drain()
    elapsed_s = time.monotonic() - started_at - STAYS_EMPTY_S
    if not bench.is_right(target, "backlog", outcome):
        return
    if waiting < BACKLOG_SHARE_MIN * calls:
        bench.report.note(f"only {waiting} of {calls} settlements waited: ledger rows a second are not measured")
        return
    bench.report.add(target.name, "ledger_rows_per_s", (stores.rows() - rows_before) / elapsed_s)
    bench.report.add(target.name, "ledger_calls_per_s", outcome.calls / elapsed_s)


def audit(bench: Bench, target: Target) -> None:
    """After all that load: do the books balance?"""
    if bench.tollgate is not None:
        complaint = bench.tollgate.audit()
        bench.report.add(target.name, "errors", 1 if complaint else 0)
        bench.report.note("tollgate audit is clean after the run" if not complaint else f"AUDIT FAILED: {complaint}")


def _signal(pids: tuple[int, ...], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)
