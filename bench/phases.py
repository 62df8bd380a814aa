"""The measurements: each takes one target through one kind of load and adds what it saw to the report.

A phase leaves nothing behind that could disturb the next one: Tollgate's outboxes are drained before it returns.
"""

import os
import signal
import time
from collections.abc import Callable

import msgspec

from bench.loader import Loader
from bench.orders import Outcome
from bench.processes import cpu_s, pss_bytes, rss_bytes
from bench.samples import Plan, Report
from bench.stores import STAYS_EMPTY_S, Stores
from bench.target import Kind, Target
from bench.tollgate import Tollgate

SETTLE_S = 0.5
RATE_HEADROOM = 1.3  # an open loop near capacity measures only its own queue
BACKLOG_SHARE_MIN = 0.9  # of the calls, that wait when the workers go on: else it was none
SLOW_STREAMS_MAX = 250  # of a target that opens streams one by one, as slow as plain calls


class Bench(msgspec.Struct, frozen=True):
    """What the phases work with. `tollgate` and `stores` are both there, or both not."""

    plan: Plan
    report: Report
    loader: Loader
    tollgate: Tollgate | None = None
    stores: Stores | None = None

    def stores_of(self, target: Target) -> Stores | None:
        return self.stores if target.kind is Kind.TOLLGATE else None

    def is_right(self, target: Target, load: str, outcome: Outcome) -> bool:
        """Whether all answers were right; if not, say so, and take no figures from this load."""
        self.report.add(target.name, "errors", outcome.errors)
        if outcome.errors:
            self.report.note(f"{target.name}, {load}: {outcome.errors} wrong answers, first: {outcome.complaint}")
        return not outcome.errors


def idle(bench: Bench, target: Target) -> None:
    """Memory before the first call."""
    bench.report.add(target.name, "idle_rss_mb", rss_bytes(target.pids) / 1e6)
    bench.report.add(target.name, "idle_pss_mb", pss_bytes(target.pids) / 1e6)


def held_streams(bench: Bench, target: Target) -> None:
    """Memory by open streams. The base is what the process holds after a few streams, with none open."""
    with bench.loader.held_streams(target, 10):
        pass
    time.sleep(SETTLE_S)
    base_bytes = rss_bytes(target.pids)
    bench.report.plot("memory_mb_by_streams", target.name, 0, base_bytes / 1e6)
    sizes = [size for size in bench.plan.held_streams if target.verbatim or size <= SLOW_STREAMS_MAX]
    for streams in sizes or [SLOW_STREAMS_MAX]:
        with bench.loader.held_streams(target, streams) as opened:
            time.sleep(SETTLE_S)
            held_bytes = rss_bytes(target.pids)
        if bench.is_right(target, f"{streams} open streams", opened):
            bench.report.plot("memory_mb_by_streams", target.name, streams, held_bytes / 1e6)
            bench.report.add(target.name, "stream_kb", (held_bytes - base_bytes) / streams / 1000)
    drain(bench, target)


def plain(bench: Bench, target: Target) -> None:
    """Plain calls as fast as they are answered: CPU of the target per call, and of Tollgate's stores and workers."""
    plan, report = bench.plan, bench.report
    bench.loader.plain(target, connections=plan.connections, duration_s=plan.warm_s)
    drain(bench, target)
    stores_before = _stores_cpu_s(bench, target)
    before_s = cpu_s(target.pids)
    outcome = bench.loader.plain(target, connections=plan.connections, duration_s=plan.plain_s)
    used_s = cpu_s(target.pids) - before_s
    drain(bench, target)
    if not bench.is_right(target, "plain", outcome):
        return
    calls = outcome.calls
    report.add(target.name, "call_cpu_us", used_s / calls * 1e6)
    report.add(target.name, "calls_per_s", calls / outcome.elapsed_s)
    for name, stores_s in _stores_cpu_s(bench, target).items():
        report.add(target.name, f"{name}_cpu_us", (stores_s - stores_before[name]) / calls * 1e6)


def streamed(bench: Bench, target: Target) -> None:
    """Paced streams: CPU of the target per event, the calls around them included."""
    before_s = cpu_s(target.pids)
    outcome = bench.loader.streamed(target, events=bench.plan.events, pace_ms=bench.plan.pace_ms)
    used_s = cpu_s(target.pids) - before_s
    drain(bench, target)
    if bench.is_right(target, "streamed", outcome):
        events = outcome.calls * bench.plan.events
        bench.report.add(target.name, "event_cpu_us", used_s / events * 1e6)
        bench.report.add(target.name, "events_per_s", events / outcome.elapsed_s)


def scheduled(bench: Bench, target: Target) -> None:
    """Calls at a fixed rate: latency over that of the direct calls between them, and how late Tollgate's ledger is."""
    plan, report = bench.plan, bench.report
    if not _sustains(bench, target, plan.rate_per_s):
        report.note(f"{target.name} does not sustain {plan.rate_per_s:.0f} calls/s: no latency is given")
        return
    stores = bench.stores_of(target)
    began = stores.now() if stores else None
    redis_before_s = stores.redis_cpu_s() if stores else 0.0
    before_s = cpu_s(target.pids)
    outcome = bench.loader.scheduled(target, rate_per_s=plan.rate_per_s, duration_s=plan.scheduled_s)
    used_s = cpu_s(target.pids) - before_s
    drain(bench, target)
    direct = outcome.direct
    assert direct is not None
    if not bench.is_right(target, "scheduled", outcome) or direct.errors:
        return
    calls = outcome.calls
    report.add(target.name, "scheduled_cpu_us", used_s / calls * 1e6)
    for name, seen in ((target.name, outcome), ("direct", direct)):
        report.add(name, "p50_ms", seen.p50_ms)
        report.add(name, "p99_ms", seen.p99_ms)
    report.add(target.name, "added_p50_ms", outcome.p50_ms - direct.p50_ms)
    report.add(target.name, "added_p99_ms", outcome.p99_ms - direct.p99_ms)
    if stores:
        report.add(target.name, "redis_scheduled_cpu_us", (stores.redis_cpu_s() - redis_before_s) / calls * 1e6)
        lag = stores.lag(began)
        if lag.transfers < calls:
            report.note(f"{target.name}: the ledger has {lag.transfers} transfers for {calls} calls")
            return
        report.add(target.name, "lag_p50_ms", lag.p50_ms)
        report.add(target.name, "lag_p99_ms", lag.p99_ms)


def sweep(bench: Bench, target: Target) -> None:
    """Latency by load, up to what the target sustains."""
    for rate_per_s in bench.plan.sweep_per_s:
        if not _sustains(bench, target, rate_per_s):
            break
        outcome = bench.loader.scheduled(target, rate_per_s=rate_per_s, duration_s=bench.plan.sweep_s)
        drain(bench, target)
        direct = outcome.direct
        assert direct is not None
        if not bench.is_right(target, f"{rate_per_s:.0f} calls/s", outcome):
            break
        bench.report.plot("added_p50_ms_by_rate", target.name, rate_per_s, outcome.p50_ms - direct.p50_ms)
        bench.report.plot("added_p99_ms_by_rate", target.name, rate_per_s, outcome.p99_ms - direct.p99_ms)


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
        outcome = bench.loader.plain(target, connections=bench.plan.connections, duration_s=120, calls_max=calls)
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
    if target.kind is Kind.TOLLGATE and bench.tollgate is not None:
        complaint = bench.tollgate.audit()
        bench.report.add(target.name, "errors", 1 if complaint else 0)
        bench.report.note("tollgate audit is clean after the run" if not complaint else f"AUDIT FAILED: {complaint}")


ROUND: tuple[Callable[[Bench, Target], None], ...] = (plain, streamed, scheduled)


def drain(bench: Bench, target: Target) -> None:
    stores = bench.stores_of(target)
    if stores:
        stores.drain()


def _sustains(bench: Bench, target: Target, rate_per_s: float) -> bool:
    capacity = bench.report.values(target.name, "calls_per_s")
    return not capacity or min(capacity) >= RATE_HEADROOM * rate_per_s


def _stores_cpu_s(bench: Bench, target: Target) -> dict[str, float]:
    stores = bench.stores_of(target)
    if stores is None or bench.tollgate is None:
        return {}
    return {
        "redis": stores.redis_cpu_s(),
        "postgres": cpu_s(bench.tollgate.postgres_pids()),
        "worker": cpu_s(bench.tollgate.worker_pids),
    }


def _signal(pids: tuple[int, ...], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)
