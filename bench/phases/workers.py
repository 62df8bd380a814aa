"""What a second gateway process adds: the same load on a Tollgate with one and on a Tollgate with two of them."""

import msgspec

from bench.phases.bench import Bench, Cost
from bench.processes import stop
from bench.stores import Stores
from bench.target import Target
from bench.tollgate import start_tollgate

# The two gateways, Redis, Postgres, worker, load generator and upstream, each of which must never wait for a core.
CORES_FOR_TWO = 8


def second_worker(bench: Bench, target: Target) -> None:
    """Alternate between both; each gateway process gets as many connections. With too few cores for both, what two
    could do on cores of their own is computed from the CPU that their calls took, and from what Redis can serve."""
    plan, report = bench.plan, bench.report
    bench.say("starting a Tollgate with two workers")
    pair = start_tollgate(bench.children, bench.upstream.port, bench.directory / "pair", "tollgate-pair", workers=2)
    try:
        with Stores(pair.redis_url, pair.database_url) as stores:
            both = msgspec.structs.replace(bench, tollgate=pair, stores=stores)
            for benched, each, connections in 2 * ((bench, target, 1), (both, pair.target, 2)):  # once to warm up
                _plain(benched, each, connections * plan.connections, plan.warm_s)
            for number in range(plan.rounds):
                bench.say(f"one worker and two, {number + 1}/{plan.rounds}")
                one = _plain(bench, target, plan.connections, plan.plain_s)
                two = _plain(both, pair.target, 2 * plan.connections, plan.plain_s)
                if one is None or two is None:
                    return
                for name, cost in (("one", one), ("two", two)):
                    report.add(target.name, f"workers_{name}_calls_per_s", cost.calls_per_s)
                    report.add(target.name, f"workers_{name}_cpu_us", cost.target_us)
                    report.add(target.name, f"workers_{name}_redis_us", cost.behind_us["redis"])
                report.add(target.name, "workers_cpu_ratio", two.target_us / one.target_us)
                added = two.calls_per_s / one.calls_per_s if is_shown(report.machine.cores) else _possible(one, two)
                report.add(target.name, "second_worker_percent", (added - 1) * 100)
    finally:
        stop(pair.up)


def is_shown(cores: int) -> bool:
    """Whether a second worker has a core of its own here."""
    return cores >= CORES_FOR_TWO


def _plain(bench: Bench, target: Target, connections: int, duration_s: float) -> Cost | None:
    return bench.cost(
        target, "two workers", lambda: bench.loader.plain(target, connections=connections, duration_s=duration_s)
    )


def _possible(one: Cost, two: Cost) -> float:
    """How many times the calls of one worker two could answer, each on a core of its own, over a Redis on its own."""
    alone_per_s = min(1e6 / one.target_us, 1e6 / one.behind_us["redis"])
    together_per_s = min(2e6 / two.target_us, 1e6 / two.behind_us["redis"])
    return together_per_s / alone_per_s
