"""What every target goes through in every round: plain calls, calls whose heads differ, streams, a fixed rate."""

from collections.abc import Callable

from bench.phases.bench import Bench
from bench.processes import cpu_s
from bench.target import Kind, Target


def plain(bench: Bench, target: Target) -> None:
    """Plain calls as fast as they are answered, their heads the same from call to call, as an SDK sends them."""
    plan, report = bench.plan, bench.report
    bench.loader.plain(target, connections=plan.connections, duration_s=plan.warm_s)
    bench.drain(target)
    cost = bench.cost(
        target, "plain", lambda: bench.loader.plain(target, connections=plan.connections, duration_s=plan.plain_s)
    )
    if cost is None:
        return
    report.add(target.name, "calls_per_s", cost.calls_per_s)
    if target.kind is not Kind.DIRECT:
        report.add(target.name, "call_cpu_us", cost.target_us)
    for name, behind_us in cost.behind_us.items():
        report.add(target.name, f"{name}_cpu_us", behind_us)


def traced(bench: Bench, target: Target) -> None:
    """The same, but no request head comes twice: nothing that was learnt from the last one helps with the next."""
    connections, duration_s = bench.plan.connections, bench.plan.plain_s
    cost = bench.cost(
        target,
        "traced",
        lambda: bench.loader.plain(target, connections=connections, duration_s=duration_s, traced=True),
    )
    if cost is not None:
        bench.report.add(target.name, "traced_call_cpu_us", cost.target_us)


def streamed(bench: Bench, target: Target) -> None:
    """Paced streams: CPU of the target per event, the calls around them included."""
    before_s = cpu_s(target.pids)
    outcome = bench.loader.streamed(target, events=bench.plan.events, pace_ms=bench.plan.pace_ms)
    used_s = cpu_s(target.pids) - before_s
    bench.drain(target)
    if bench.is_right(target, "streamed", outcome):
        events = outcome.calls * bench.plan.events
        bench.report.add(target.name, "event_cpu_us", used_s / events * 1e6)
        bench.report.add(target.name, "events_per_s", events / outcome.elapsed_s)


def scheduled(bench: Bench, target: Target) -> None:
    """Calls at a fixed rate: latency over that of the direct calls between them, and how late Tollgate's ledger is."""
    plan, report = bench.plan, bench.report
    if not bench.sustains(target, plan.rate_per_s):
        report.note(f"{target.name} does not sustain {plan.rate_per_s:.0f} calls/s: no latency is given")
        return
    stores = bench.stores_of(target)
    began = stores.now() if stores else None
    redis_before_s = stores.redis_cpu_s() if stores else 0.0
    before_s = cpu_s(target.pids)
    outcome = bench.loader.scheduled(target, rate_per_s=plan.rate_per_s, duration_s=plan.scheduled_s)
    used_s = cpu_s(target.pids) - before_s
    bench.drain(target)
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
        if not bench.sustains(target, rate_per_s):
            break
        bench.say(f"latency by load · {target.name} · {rate_per_s:,.0f} calls/s")
        outcome = bench.loader.scheduled(target, rate_per_s=rate_per_s, duration_s=bench.plan.sweep_s)
        bench.drain(target)
        direct = outcome.direct
        assert direct is not None
        if not bench.is_right(target, f"{rate_per_s:.0f} calls/s", outcome):
            break
        bench.report.plot("added_p50_ms_by_rate", target.name, rate_per_s, outcome.p50_ms - direct.p50_ms)
        bench.report.plot("added_p99_ms_by_rate", target.name, rate_per_s, outcome.p99_ms - direct.p99_ms)


ROUND: tuple[Callable[[Bench, Target], None], ...] = (plain, traced, streamed, scheduled)
