"""Random lives of a purchase, told to the ledger in random order, with repeats and losses: all must end alike.

Several workers hear of them: each reads the payment, and posts what it read at once, much later, or, killed, never.

`python -m tests.core.permutations --count 10000` runs as many as one likes; the suite runs some.
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gateway.core.accounting.ledger import Buckets
from gateway.core.accounting.topups import Dispute, Order, Payment, Refund, Standing, facts_of, movements, target


class Life:
    """What happens to one payment at Stripe, step by step; and what of it the ledger has heard."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        cents = chance.randrange(50, 100_000)
        self.tax = chance.choice([0, cents * 19 // 100])
        self.order = Order(cents, "usd", False, chance.choice([0, 1, cents * 1_000_000]))
        self.refunds: list[Refund] = []
        self.disputes: list[Dispute] = []
        self.is_paid = False

    def payment(self) -> Payment:
        received = self.order.amount_cents + self.tax
        status = "succeeded" if self.is_paid else "processing"
        return Payment("pi", "p", status, received, "usd", False, 30, tuple(self.refunds), tuple(self.disputes))

    def step(self) -> None:
        if not self.is_paid:
            self.is_paid = True
            return
        self._chance.choice([self._refund, self._refund_fails, self._dispute, self._decide, self._decide])()

    def _refund(self) -> None:
        left = self.order.amount_cents + self.tax - sum(r.cents for r in self.refunds if r.status == "succeeded")
        if left:
            cents = self._chance.choice([left, self._chance.randint(1, left)])
            self.refunds.append(Refund(f"re_{len(self.refunds)}", cents, "succeeded"))

    def _refund_fails(self) -> None:
        if self.refunds:
            at = self._chance.randrange(len(self.refunds))
            self.refunds[at] = Refund(self.refunds[at].id, self.refunds[at].cents, "failed")

    def _dispute(self) -> None:
        cents = self._chance.randint(1, self.order.amount_cents + self.tax)
        self.disputes.append(Dispute(f"du_{len(self.disputes)}", cents, "needs_response", cents, 1500))

    def _decide(self) -> None:
        for at, each in enumerate(self.disputes):
            if each.status == "needs_response":
                won = self._chance.random() < 0.5
                kept = 0 if won else each.withdrawn_cents
                self.disputes[at] = Dispute(each.id, each.cents, "won" if won else "lost", kept, 1500)
                return


class Reading(NamedTuple):
    number: int
    payment: Payment


class Told:
    """A ledger of one account that is told of a payment now and then. Of two readings the later begun wins."""

    def __init__(self, start: Buckets) -> None:
        self.buckets = start
        self.posted = Standing()
        self.system: Counter[str] = Counter()
        self._readings = self._version = 0

    def read(self, life: Life) -> Reading:
        self._readings += 1
        return Reading(self._readings, life.payment())

    def post(self, life: Life, reading: Reading) -> None:
        """What comes too late is read anew, as `Payments.look` does it."""
        if self._version > reading.number:
            reading = self.read(life)
        self._version = reading.number
        order = life.order
        facts = facts_of(reading.payment, order, tax_cents=life.tax, promised_cents=0, freeze="account")
        made = movements(order, self.posted, target(order, facts), self.buckets)
        for movement in made.movements:
            assert sum(entry.amount for entry in movement.entries) == 0
            for entry in movement.entries:
                self.system[entry.bucket] += entry.amount
        self.posted, self.buckets = made.standing, made.buckets
        assert 0 <= self.posted.reversed <= order.granted


def readings(chance: random.Random, life: Life, read: Callable[[], Reading]) -> Iterator[Reading]:
    """Live `life`; what is read of it meanwhile, in the order in which it is to be posted."""
    messages, under_way = 0, list[Reading]()
    for _ in range(chance.randint(1, 12)):
        life.step()
        messages += chance.choice([0, 1, 1, 2, 3])
        while messages and chance.random() < 0.6:  # each says only "look again", so their order is no matter
            messages -= 1
            under_way.append(read())
            while under_way and chance.random() < 0.6:
                yield under_way.pop(chance.randrange(len(under_way)))
            if under_way and chance.random() < 0.1:  # this worker was killed, and the message comes again
                under_way.pop()
                messages += 1
    # What is left, late; where all were lost, the backfill's one look. Whoever was stalled wakes up in between.
    under_way += [read() for _ in range(messages + 1)]
    chance.shuffle(under_way)
    yield from under_way


def run(seed: int) -> None:
    """One life: told in shuffled, repeated, partly lost messages, it ends as if told once, at the end."""
    chance = random.Random(seed)
    start = chance.choice([Buckets(), Buckets(debt=-3), Buckets(promo=7_000, paid=11), Buckets(debt=-(10**13))])
    life, told, once = Life(chance), Told(start), Told(start)
    for reading in readings(chance, life, lambda: told.read(life)):
        told.post(life, reading)
    once.post(life, once.read(life))
    assert (told.posted, told.buckets, told.system) == (once.posted, once.buckets, once.system), f"seed {seed}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    count = parser.parse_args().count
    began_s = time.monotonic()
    for number in range(count):
        run(number)
    print(f"{count} lives ended alike, in {time.monotonic() - began_s:.1f} s")
