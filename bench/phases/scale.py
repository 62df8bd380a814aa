"""Whether a call costs the same however many accounts and open holds there are, and how its cost grows with its body.

Figures are taken beside the aiohttp relay's of the same moment, so that a busy machine shows in both.
"""

from collections.abc import Callable
from functools import partial

from bench.books import Books
from bench.orders import Outcome
from bench.phases.bench import Bench
from bench.samples import FEW_KEYS, MANY_KEYS, OWNERS
from bench.target import Target
from gateway.core.holds import Hold

FEW, MANY = 10, 4096
BODY_CONNECTIONS = 8


def accounts(bench: Bench, target: Target) -> None:
    """More and more accounts, all of them in Redis too; ten keys of ten accounts call, and thousands of as many."""
    tollgate, stores = bench.tollgate, bench.stores
    assert tollgate is not None
    assert stores is not None
    books = Books(tollgate.database_url, tollgate.redis_url)
    keys: tuple[str, ...] = ()
    in_books = 0
    for total in bench.plan.accounts:
        wanted = min(MANY, total)
        if len(keys) < wanted:
            bench.say(f"{total:,} accounts: opening {wanted:,} that call")
            keys += books.add_callers(wanted - len(keys), _teller(bench, "opened"))
            in_books = max(in_books, len(keys))
        if in_books < total:
            bench.say(f"{total:,} accounts: into Postgres")
            ids = books.new_ids(total - in_books)
            stores.add_accounts(ids)
            books.load_into_redis(ids, _teller(bench, "accounts: into Redis"))
            in_books = total
        bench.say(f"calls with {total:,} accounts in the books")
        stores.rest()
        few, many = keys[:FEW], keys[:MANY]
        # The first call of each key looks it up and loads its account: once for all, and not what is measured.
        bench.loader.each_key(target, many, connections=bench.plan.connections, duration_s=60, calls=2 * len(many))
        bench.drain(target)
        for _ in range(bench.plan.rounds):
            _beside_aiohttp(bench, target, "accounts", FEW_KEYS, total, few)
            if len(many) > len(few):
                _beside_aiohttp(bench, target, "accounts", MANY_KEYS, total, many)


def open_holds(bench: Bench, target: Target) -> None:
    """More and more open holds of the very accounts that call; all are voided in the end."""
    tollgate, stores = bench.tollgate, bench.stores
    assert tollgate is not None
    assert stores is not None
    books = Books(tollgate.database_url, tollgate.redis_url)
    owners = stores.accounts_of(target.keys)
    held: list[Hold] = []
    for total in bench.plan.open_holds:
        bench.say(f"{total:,} open holds: opening them")
        held += books.open_holds(owners, total - len(held), _teller(bench, "holds opened"))
        bench.say(f"calls with {total:,} open holds")
        stores.rest()
        for _ in range(bench.plan.rounds):
            _beside_aiohttp(bench, target, "open_holds", OWNERS, total, target.keys)
    bench.say("voiding the open holds")
    books.void(held, _teller(bench, "holds voided"))
    bench.drain(target)


def bodies(bench: Bench, target: Target) -> None:
    """CPU per call by the size of its body."""
    for _ in range(bench.plan.rounds):
        for size_bytes in bench.plan.body_bytes:
            bench.say(f"bodies of {size_bytes:,} bytes · {target.name}")
            cost = bench.cost(target, f"bodies of {size_bytes} bytes", partial(_sized, bench, target, size_bytes))
            if cost is not None:
                bench.report.plot("cpu_us_by_body_bytes", target.name, size_bytes, cost.target_us)


def _sized(bench: Bench, target: Target, size_bytes: int) -> Outcome:
    duration_s = bench.plan.scale_s
    return bench.loader.plain(target, connections=BODY_CONNECTIONS, duration_s=duration_s, size_bytes=size_bytes)


def _beside_aiohttp(bench: Bench, target: Target, what: str, series: str, x: int, keys: tuple[str, ...]) -> None:
    aiohttp = bench.aiohttp
    assert aiohttp is not None
    yardstick = bench.cost(aiohttp, what, lambda: _each_key(bench, aiohttp, keys))
    cost = bench.cost(target, what, lambda: _each_key(bench, target, keys))
    if yardstick is None or cost is None:
        return
    redis_us = cost.behind_us["redis"]
    bench.report.plot(f"gateway_us_by_{what}", series, x, cost.target_us)
    bench.report.plot(f"redis_us_by_{what}", series, x, redis_us)
    bench.report.plot(f"ratio_by_{what}", series, x, (cost.target_us + redis_us) / yardstick.target_us)


def _each_key(bench: Bench, target: Target, keys: tuple[str, ...]) -> Outcome:
    plan = bench.plan
    return bench.loader.each_key(target, keys, connections=plan.connections, duration_s=plan.scale_s)


def _teller(bench: Bench, what: str) -> Callable[[int], None]:
    return lambda done: bench.tick(f"{what}: {done:,}")
