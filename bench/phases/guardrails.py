"""What the guardrails cost: the same load on a Tollgate without any of them, and on one with all of them at work."""

import msgspec

from bench.phases.bench import Bench, Cost
from bench.processes import stop
from bench.stores import Stores
from bench.target import Target
from bench.tollgate import Tollgate, start_tollgate

# In each round, each half as long as a phase: the difference is small, and a machine is not as fast in every second.
TURNS = 4
NONE = {"TOLLGATE_BREAKER__ENABLED": "false", "TOLLGATE_CAPS__POLICIES": "none", "TOLLGATE_ANOMALY__MODE": "off"}
ALL = {"TOLLGATE_BROWNOUT__EXPENSIVE": '["gpt-*"]'}
# None of them touches the calls of the bench: what is measured is that they are looked at.
ORDERS = (
    ("flags", "set", "maintenance", "on", "--percent", "0", "--reason", "bench"),
    ("flags", "set", "endpoint:/v1/embeddings", "off", "--reason", "bench"),
    ("brownout", "set", "gpt-4.1*", "2", "--for", "1h", "--reason", "bench"),
)


class Ran(msgspec.Struct, frozen=True):
    cost: Cost
    scripts: float  # of Redis, a call


def guardrails(bench: Bench, target: Target) -> None:
    """Alternate between both: caps of account, member and key, flags, a brownout and its rules, breakers, anomalies."""
    plan, report = bench.plan, bench.report
    port, where = bench.upstream.port, bench.directory
    bench.say("starting a Tollgate without guardrails, and one with all of them")
    bare = start_tollgate(bench.children, port, where / "bare", "tollgate-bare", settings=NONE)
    try:
        guarded = start_tollgate(
            bench.children, port, where / "guarded", "tollgate-guarded", settings=ALL, guarded=True
        )
        try:
            for order in ORDERS:
                guarded.order(*order)
            sides = {"bare": bare, "guarded": guarded}
            for each in sides.values():
                _plain(bench, each, 2 * plan.warm_s)
            turns = TURNS * plan.rounds
            for number in range(turns):
                bench.say(f"with guardrails and without, {number + 1}/{turns}")
                names = sorted(sides, reverse=bool(number % 2))  # neither always runs first
                ran = {name: _plain(bench, sides[name], plan.plain_s / 2) for name in names}
                without, with_all = ran["bare"], ran["guarded"]
                if without is None or with_all is None:
                    return
                for name, one in (("bare", without), ("guarded", with_all)):
                    report.add(target.name, f"{name}_cpu_us", one.cost.target_us)
                    report.add(target.name, f"{name}_redis_us", one.cost.behind_us["redis"])
                    report.add(target.name, f"{name}_scripts", one.scripts)
                percent = (with_all.cost.target_us / without.cost.target_us - 1) * 100
                report.add(target.name, "guardrails_percent", percent)
                report.add(target.name, "guardrails_scripts", with_all.scripts - without.scripts)
        finally:
            stop(guarded.up)
    finally:
        stop(bare.up)


def _plain(bench: Bench, tollgate: Tollgate, duration_s: float) -> Ran | None:
    target, connections = tollgate.target, bench.plan.connections
    with Stores(tollgate.redis_url, tollgate.database_url) as stores:
        own = msgspec.structs.replace(bench, tollgate=tollgate, stores=stores)
        before = stores.scripts_run()
        cost = own.cost(
            target, "guardrails", lambda: bench.loader.plain(target, connections=connections, duration_s=duration_s)
        )
        return None if cost is None else Ran(cost, (stores.scripts_run() - before) / cost.calls)
