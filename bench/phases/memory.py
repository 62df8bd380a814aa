"""Memory: before the first call, and by streams that are open at once."""

import time

from bench.phases.bench import Bench
from bench.processes import pss_bytes, rss_bytes
from bench.target import Kind, Target

SETTLE_S = 0.5
FIRST_STREAMS = 10  # opened and ended before the base is taken
SLOW_STREAMS_MAX = 250  # of a target that opens streams one by one, as slow as plain calls
REST_S = 1.0


def idle(bench: Bench, target: Target) -> None:
    """Memory before the first call, and what Tollgate's Redis does while there is none."""
    bench.report.add(target.name, "idle_rss_mb", rss_bytes(target.pids) / 1e6)
    bench.report.add(target.name, "idle_pss_mb", pss_bytes(target.pids) / 1e6)
    stores = bench.stores_of(target)
    if stores:
        before_s = stores.redis_cpu_s()
        time.sleep(REST_S)
        bench.report.add(target.name, "redis_rest_ms_per_s", (stores.redis_cpu_s() - before_s) / REST_S * 1000)


def open_streams(bench: Bench, target: Target) -> None:
    """Memory by open streams, more and more of them; then all end at once, and each must arrive whole.

    The base is what the process holds after a few streams, with none open.
    """
    report = bench.report
    bench.loader.open_streams(target, FIRST_STREAMS)
    bench.loader.end_streams()
    time.sleep(SETTLE_S)
    base_bytes = held_bytes = rss_bytes(target.pids)
    report.plot("memory_mb_by_streams", target.name, 0, base_bytes / 1e6)
    sizes = [size for size in bench.plan.held_streams if target.verbatim or size <= SLOW_STREAMS_MAX]
    streams = 0
    for size in sizes or [SLOW_STREAMS_MAX]:
        bench.say(f"open streams · {target.name} · {size:,}")
        opened = bench.loader.open_streams(target, size - streams)
        streams = size
        if opened.errors:
            break
        time.sleep(SETTLE_S)
        held_bytes = rss_bytes(target.pids)
        report.plot("memory_mb_by_streams", target.name, streams, held_bytes / 1e6)
    if target.kind is Kind.TOLLGATE and bench.plan.held_s and streams:
        bench.say(f"open streams · {target.name} · {streams:,} stay open for {bench.plan.held_s:.0f} s")
        time.sleep(bench.plan.held_s)
        held_bytes = rss_bytes(target.pids)
        report.plot("memory_mb_by_streams", target.name, streams, held_bytes / 1e6)
    ended = bench.loader.end_streams()
    bench.drain(target)
    report.add(target.name, "held_streams", ended.calls)
    report.add(target.name, "held_wrong", ended.errors)
    if bench.is_right(target, f"{streams} open streams", ended):
        report.add(target.name, "stream_kb", (held_bytes - base_bytes) / streams / 1000)
