"""`python -m bench.flag_effect`: how long after a flag is committed the last call is still served as if it were not.

Callers on many connections to two gateways call one after the other while `maintenance` is switched on and off. On each
connection a change is late by as much as the last call of the old kind began after the commit.
"""

import asyncio
import itertools
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import aiohttp
import msgspec
import typer
from prometheus_client.parser import text_string_to_metric_families

from bench.processes import BenchError, Children
from bench.tollgate import start_tollgate
from bench.yardsticks.start import start_upstream
from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.flags import FlagDesk
from gateway.app.stores import open_stores
from gateway.config import load
from gateway.core.guard.flags import MAINTENANCE, Scope
from gateway.logs import configure_logs

CONNECTIONS = 32
PAUSE_S = 0.005  # between the calls of one connection: some thousands a second would leave the gateways no core
BEFORE_S, BETWEEN_S = 0.5, 0.75  # more than a change may take
GIVE_UP_S = 5.0
BODY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hi"}],"max_tokens":16}'
SIGNATURE = Signature("bench", "how long does it take?")
OUT = Path(__file__).parent / "out" / "flag_effect"


class Measured(msgspec.Struct, frozen=True):
    """The lateness of every change on every connection."""

    late_s: tuple[float, ...]
    calls: int

    def quantile(self, share: float) -> float:
        return sorted(self.late_s)[min(int(len(self.late_s) * share), len(self.late_s) - 1)]


class Caller:
    """One connection, and when the last call began that was served, and that was refused."""

    def __init__(self) -> None:
        self.calls = 0
        self.began_at = {True: 0.0, False: 0.0}  # by whether it was refused

    async def call_for_ever(self, url: str, key: str) -> None:
        connector = aiohttp.TCPConnector(limit=1)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            while True:
                began_at = time.monotonic()
                async with session.post(f"{url}/chat/completions", data=BODY) as answer:
                    await answer.read()
                    if answer.status not in (200, 503):
                        raise BenchError(f"a call was answered {answer.status}")
                    self.began_at[answer.status == 503] = began_at
                self.calls += 1
                await asyncio.sleep(PAUSE_S)


async def measure(url: str, keys: Sequence[str], desk: FlagDesk, changes: int) -> Measured:
    """Switch `maintenance` so often, under load; it is off again afterwards."""
    callers = [Caller() for _ in range(CONNECTIONS)]
    late_s: list[float] = []
    async with asyncio.TaskGroup() as group:
        calling = [
            group.create_task(caller.call_for_ever(url, key))
            for caller, key in zip(callers, itertools.cycle(keys), strict=False)
        ]
        await asyncio.sleep(BEFORE_S)
        for number in range(changes):
            is_refusing = number % 2 == 0
            if is_refusing:
                await desk.set(MAINTENANCE, True, Scope(), SIGNATURE)
            else:
                await desk.clear(MAINTENANCE, SIGNATURE)
            late_s += await _lateness(callers, is_refusing, time.monotonic())
        if changes % 2:
            await desk.clear(MAINTENANCE, SIGNATURE)
        for task in calling:
            task.cancel()
    return Measured(tuple(late_s), sum(caller.calls for caller in callers))


async def served_by(ops_url: str, gateways: int) -> list[int]:
    """How many calls each gateway has answered, served or refused; raises `BenchError` unless all of them took part."""
    async with aiohttp.ClientSession() as session, session.get(f"{ops_url}/metrics") as answer:
        text = await answer.text()
    answered: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in ("tollgate_calls_total", "tollgate_refusals_total"):
                answered[sample.labels.get("process", "")] += int(sample.value)
    counts = [count for process, count in sorted(answered.items()) if not process.startswith("work")]
    if len(counts) < gateways:
        raise BenchError(f"only {len(counts)} of {gateways} gateways were called")
    return counts


async def _lateness(callers: Sequence[Caller], is_refusing: bool, changed_at: float) -> list[float]:
    """By how much each connection saw the change late, looked at when it has long settled."""
    await asyncio.sleep(BETWEEN_S)
    while any(caller.began_at[is_refusing] < changed_at for caller in callers):
        if time.monotonic() - changed_at > GIVE_UP_S:
            raise BenchError("a flag has no effect")
        await asyncio.sleep(PAUSE_S)
    return [max(caller.began_at[not is_refusing] - changed_at, 0.0) for caller in callers]


def main(
    changes: Annotated[int, typer.Option(min=1, help="How often the flag is switched.")] = 20,
    gateways: Annotated[int, typer.Option(min=1, help="Gateway processes.")] = 2,
) -> None:
    """Measure how soon a flag takes effect on all gateways, under load."""
    configure_logs("error", "console")
    with Children(OUT) as children:
        upstream = start_upstream(children)
        tollgate = start_tollgate(children, upstream.port, OUT / "tollgate", workers=gateways)
        config = load(None, database_url=tollgate.database_url, redis_url=tollgate.redis_url)

        async def run() -> tuple[Measured, list[int]]:
            async with open_stores(config) as stores:
                url = f"http://127.0.0.1:{tollgate.target.port}/v1"
                found = await measure(url, tollgate.target.keys, stores.flags, changes)
            return found, await served_by(tollgate.ops_url, gateways)

        found, shares = asyncio.run(run())
    print(
        f"{changes} changes, {gateways} gateways, {CONNECTIONS} connections,"
        f" {found.calls} calls ({' + '.join(map(str, shares))}):"
        f" median {statistics.median(found.late_s) * 1000:.0f} ms, p99 {found.quantile(0.99) * 1000:.0f} ms,"
        f" most {max(found.late_s) * 1000:.0f} ms"
    )


if __name__ == "__main__":
    typer.run(main)
