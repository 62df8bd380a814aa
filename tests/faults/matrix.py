"""The long version of the fault tests: `python -m tests.faults.matrix --seconds N [--seed N]`.

Under load, one part after the other is killed, stopped or emptied, at moments that a seed decides; after every tenth
fault, and at the end, the books are reckoned up.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from redis.asyncio import Redis

from tests.faults.conftest import SHORT_LEASES
from tests.faults.load import load
from tests.faults.reckoning import reckon
from tests.faults.tree import PARTS, Tree
from tests.up import Stack, running_up

CREDITS = 1_000_000
FAULTS_PER_ROUND = 10
FAULTS = [*(f"kill {part}" for part in PARTS), *(f"stop {part}" for part in PARTS), "flush redis"]


async def make_fault(up: Stack, tree: Tree, fault: str, seconds: float) -> None:
    what, part = fault.split()
    if what == "kill":
        await asyncio.to_thread(tree.wait_restarted, part, tree.kill(part))
    elif what == "stop":
        with tree.stopped(part):
            await asyncio.sleep(seconds)
    else:
        async with Redis.from_url(up.ready["redis_url"]) as redis:
            await redis.flushall()


async def one_round(up: Stack, number: int, chance: random.Random, ends_at: float) -> Counter[str]:
    """Some faults under load on an account of their own, then the reckoning; returns what was done and seen."""
    tag = f"round-{number}"
    account, key = await asyncio.to_thread(up.new_caller, tag, CREDITS)
    tree, done = Tree(up.process.pid), Counter[str]()
    async with load(up.base_url, key, tag, callers=6) as running:
        while done.total() < FAULTS_PER_ROUND and time.monotonic() < ends_at:
            await running.wait_for("ok", chance.randint(1, 40))
            fault = chance.choice(FAULTS)
            print(f"  {fault}", flush=True)
            await make_fault(up, tree, fault, chance.uniform(0.1, 3.0))
            done[fault] += 1
        await running.wait_for("ok", 8)
    lines = await asyncio.to_thread(reckon, up, account, tag, CREDITS, gateway_died=bool(done["kill serve"]))
    print(f"round {number}: {len(lines)} lines, the books are right; callers saw {dict(running.seen)}", flush=True)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    chance, ends_at, done = random.Random(arguments.seed), time.monotonic() + arguments.seconds, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "short-leases.toml")
        config.write_text(SHORT_LEASES)
        with running_up(Path(folder, "data"), "--config", str(config)) as up:
            number = 0
            while time.monotonic() < ends_at:
                done += asyncio.run(one_round(up, number, chance, ends_at))
                number += 1
    print(f"{done.total()} faults: {dict(done)}")


if __name__ == "__main__":
    main()
