"""One run: everything is started, measured in interleaved rounds, and ended."""

import fcntl
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.progress import Progress

from bench import bars
from bench.loader import Loader
from bench.machine import commit, this_machine
from bench.peers.catalogue import PEERS
from bench.phases import guardrails, ledger, memory, rounds, scale, workers
from bench.phases.bench import Bench
from bench.processes import BenchError, Children, lift_file_limit
from bench.samples import Plan, Report
from bench.stores import Stores
from bench.target import Kind, Target
from bench.tollgate import Tollgate, start_tollgate
from bench.yardsticks.start import start_nginx, start_python_relay, start_upstream

FILES_SPARE = 100  # that a relay has open for other reasons
Phase = Callable[[Bench, Target], None]
Step = tuple[str, Phase, Target]


def run(plan: Plan, out: Path, progress: Progress, *, only: frozenset[str], peers: bool) -> Report:
    """Measure what is installed (of `only`, when it names any). Raises `BenchError` when that is not possible."""
    asked, plan = plan, _within_file_limit(plan, lift_file_limit())
    task = progress.add_task("looking at the machine", total=None)

    def tick(what: str) -> None:
        progress.update(task, description=what)

    def say(what: str) -> None:
        tick(what)
        if not progress.console.is_terminal:
            progress.console.print(what, highlight=False)

    report = Report(
        started_at=datetime.now(UTC).isoformat(timespec="seconds"), commit=commit(), machine=this_machine(), plan=plan
    )
    report.limits = _limits(asked, plan, report.machine.cores)
    for limit in report.limits.values():
        report.note(f"Not shown: {limit}")
    work = out.absolute() / "run"
    with ExitStack() as stack:
        stack.enter_context(_alone(out))
        shutil.rmtree(work, ignore_errors=True)
        children = stack.enter_context(Children(work / "logs"))
        say("starting the upstream and the yardsticks")
        upstream = start_upstream(children)
        targets = [upstream, *_yardsticks(children, upstream.port, work, only, report)]
        tollgate, stores = None, None
        if not only or "tollgate" in only:
            say("starting tollgate")
            tollgate = _tollgate(children, upstream.port, work, report)
        if tollgate is not None:
            stores = stack.enter_context(Stores(tollgate.redis_url, tollgate.database_url))
            targets.append(tollgate.target)
        if peers:
            say("starting peers")
            targets += _peers(children, upstream.port, out, only, report)
        bench = Bench(
            plan=plan,
            report=report,
            loader=Loader(children, upstream),
            children=children,
            directory=work,
            upstream=upstream,
            say=say,
            tick=tick,
            aiohttp=next((target for target in targets if target.name == "aiohttp"), None),
            tollgate=tollgate,
            stores=stores,
        )
        report.samples = {target.name: {} for target in targets}
        steps = plan_steps(plan, targets)
        progress.update(task, total=len(steps), completed=0)
        for label, phase, target in steps:
            _measure(bench, label, phase, target)
            progress.advance(task)
        say("stopping everything")
    return report


def _measure(bench: Bench, label: str, phase: Phase, target: Target) -> None:
    bench.say(f"{label} · {target.name}")
    try:
        phase(bench, target)
    except BenchError as error:  # what was measured before is worth keeping
        bench.report.add(target.name, "errors", 1)
        bench.report.note(f"Not measured: {label} · {target.name}: {error}")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two benches at once would spoil each other's figures, and share a directory."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "bench.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BenchError("another bench is running here; wait until it has ended") from error
        yield


def _within_file_limit(plan: Plan, open_files_max: int) -> Plan:
    """A relay holds two sockets for each stream."""
    streams_max = (open_files_max - FILES_SPARE) // 2
    return msgspec.structs.replace(plan, held_streams=tuple(min(size, streams_max) for size in plan.held_streams))


def _limits(asked: Plan, plan: Plan, cores: int) -> dict[str, str]:
    """What this run cannot show, of a plan that was cut to what the machine allows."""
    found = bars.limits(plan)
    if plan.held_streams != asked.held_streams:
        found["streams"] = (
            f"open streams: a process may open {2 * max(plan.held_streams) + FILES_SPARE:,} files here, and a relay "
            f"needs two for each stream: {max(plan.held_streams):,} are opened instead of {max(asked.held_streams):,}"
        )
    if not workers.is_shown(cores):
        found["cores"] = (
            f"a second worker: with load, upstream and stores on the same {cores} cores (wanted: "
            f"{workers.CORES_FOR_TWO}) it has none to itself; computed from the CPU of calls with one and with two"
        )
    return found


def plan_steps(plan: Plan, targets: list[Target]) -> list[Step]:
    """What is done in which order: memory first, on fresh processes; then the rounds; then the curves; last what leaves
    a million accounts behind, and the audit."""
    relays = [target for target in targets if target.kind is not Kind.DIRECT]
    steps: list[Step] = [("idle", memory.idle, target) for target in relays]
    steps += [("open streams", memory.open_streams, target) for target in relays]
    for number in range(plan.rounds):
        order = random.Random(number).sample(targets, len(targets))
        for phase in rounds.ROUND:
            label = f"round {number + 1}/{plan.rounds}, {phase.__name__}"
            steps += [(label, phase, target) for target in order if phase is rounds.plain or target in relays]
    steps += [("latency by load", rounds.sweep, target) for target in relays if plan.sweep_per_s]
    steps += [("bodies", scale.bodies, target) for target in relays if target.kind is not Kind.PEER]
    own: list[tuple[str, Phase]] = [("backlog", ledger.backlog), ("a second worker", workers.second_worker)]
    own.append(("guardrails", guardrails.guardrails))
    if any(target.name == "aiohttp" for target in targets):
        own += [("open holds", scale.open_holds), ("accounts", scale.accounts)]
    own.append(("audit", ledger.audit))
    steps += [(label, phase, target) for label, phase in own for target in relays if target.kind is Kind.TOLLGATE]
    return steps


def _yardsticks(
    children: Children, upstream_port: int, work: Path, only: frozenset[str], report: Report
) -> list[Target]:
    found = []
    if not only or "nginx" in only:
        nginx = start_nginx(children, upstream_port, work)
        if nginx is None:
            report.note("nginx is not installed: its column is empty (apt-get install nginx)")
        else:
            found.append(nginx)
    names = [name for name in ("aiohttp", "protocol") if not only or name in only]
    return found + [start_python_relay(children, name, upstream_port) for name in names]


def _tollgate(children: Children, upstream_port: int, work: Path, report: Report) -> Tollgate | None:
    try:
        return start_tollgate(children, upstream_port, work / "tollgate")
    except BenchError as error:
        report.note(str(error))
        return None


def _peers(children: Children, upstream_port: int, out: Path, only: frozenset[str], report: Report) -> list[Target]:
    started = []
    for peer in PEERS.values():
        home = out / "peers" / peer.name
        if not peer.installed(home) or (only and peer.name not in only):
            continue
        try:
            started.append(peer.start(children, upstream_port, home))
        except BenchError as error:
            report.note(str(error))
    return started
