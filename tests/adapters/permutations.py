"""The random lives of `tests.core.permutations`, in PostgreSQL: several workers post at once what they read, and late.

`python -m tests.adapters.permutations --count 10000` runs as many as one likes; the suite runs some.
"""

import argparse
import asyncio
import itertools
import random
import tempfile
import time
from pathlib import Path

import msgspec

from gateway.adapters.postgres.ledger import Ledger
from gateway.adapters.postgres.purchases import NewPurchase, Purchase, Purchases
from gateway.adapters.postgres.schema import migrate
from gateway.core.accounting.ledger import Buckets
from gateway.sandbox.postgres import EmbeddedPostgres
from gateway.sandbox.valkey import EmbeddedRedis
from tests.books import Books, new_id, now_ms, open_books
from tests.core.permutations import Life, Reading, Told, readings

AT_ONCE = 2
LANES = 3


async def run(books: Books, seed: int) -> None:
    """One life: it ends in the books as if they had been told once, at the end."""
    chance = random.Random(seed)
    life = Life(chance)
    ledger = Ledger(books.pool, new_id=new_id)
    purchases = Purchases(books.pool, ledger, books.audit_log, freeze="account", new_id=new_id, now_ms=now_ms)
    account = await books.account()
    new = NewPurchase(account.id, "key", b"", "own", life.order, saves_card=False)
    bought = await purchases.begin(new, per_hour_max=1)
    numbers = itertools.count(1)

    def read() -> Reading:
        payment = msgspec.structs.replace(life.payment(), intent_id=f"pi_{bought.id}", purchase_id=bought.id)
        return Reading(next(numbers), payment)

    async def post(reading: Reading) -> None:
        while reading.payment.status == "succeeded":
            if await purchases.post(bought, reading.payment, reading.number, life.tax):
                return
            reading = read()

    told = readings(chance, life, read)
    while several := list(itertools.islice(told, chance.randint(1, AT_ONCE))):
        await asyncio.gather(*map(post, several))
    once = Told(Buckets())
    once.post(life, once.read(life))
    found = await purchases.find(bought.id)
    assert found is not None
    assert found.posted == once.posted, f"seed {seed}"
    assert await _entries(books, found) == {name: sum_ for name, sum_ in once.system.items() if sum_}, f"seed {seed}"


async def _entries(books: Books, bought: Purchase) -> dict[str, int]:
    """What the purchase has moved in all, by bucket."""
    sums = """
        SELECT bucket, sum(amount)::bigint AS amount FROM entry JOIN purchase_transfer USING (transfer_id)
        WHERE purchase_id = $1::uuid GROUP BY 1 HAVING sum(amount) <> 0"""
    return {row["bucket"]: row["amount"] for row in await books.pool.fetch(sums, bought.id)}


async def main(first: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        postgres = EmbeddedPostgres(Path(place) / "postgres", durable=False)
        redis = EmbeddedRedis(Path(place) / "redis", durable=False)
        await postgres.start()
        await redis.start()
        try:
            migrate(postgres.url)
            async with open_books(postgres.url, redis.url) as books:
                seeds = iter(range(first, first + count))

                async def lane() -> None:
                    for seed in seeds:
                        await run(books, seed)
                        if (seed + 1) % 1000 == 0:
                            print(f"{seed + 1} lives", flush=True)

                await asyncio.gather(*(lane() for _ in range(LANES)))
                await books.require_sound()
        finally:
            await redis.stop()
            await postgres.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    asked = parser.parse_args()
    began_s = time.monotonic()
    asyncio.run(main(asked.first, asked.count))
    print(f"{asked.count} lives ended alike in PostgreSQL, in {time.monotonic() - began_s:.1f} s")
