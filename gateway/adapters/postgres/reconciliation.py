"""What a reconciliation reads of the ledger, on a replica if there is one; and its reports, kept for ever."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date, datetime, time, timedelta
from typing import Any

import msgspec

from gateway.adapters.postgres.audit import recompute
from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.adapters.postgres.provider_costs import day_start
from gateway.adapters.postgres.recorded_cards import recorded_cards
from gateway.core.accounting.reconciliation import PaymentSums, Report
from gateway.core.accounting.topups import UCR_PER_CENT, Order
from gateway.core.calls.usage import Usage
from gateway.core.money import MicroCredits
from gateway.core.pricing.provider_costs import CostUnknown
from gateway.core.pricing.rates import Price, cost_exact

# Of the database: one reconciliation at a time, whoever makes it.
LOCK = 0x7467_7265  # "tgre"
INTENTS_AT_ONCE = 1000


class BookedPayment(msgspec.Struct, frozen=True):
    """A payment in the books. Cents; `refunds` are those that we decided on, by their id."""

    order: Order
    tax: int
    sums: PaymentSums
    refunds: dict[str, int]


class KeptReport(msgspec.Struct, frozen=True):
    report: Report
    recorded_at: datetime


class _Stored(msgspec.Struct):
    is_whole: bool
    report: Report


def day_bounds(day: date) -> tuple[datetime, datetime]:
    return day_start(day), day_start(day + timedelta(days=1))


class ReconciliationReads:
    """The ledger's figures. Each is of one statement, so of one moment."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("reconciliation")

    async def outstanding(self) -> tuple[MicroCredits, MicroCredits, MicroCredits]:
        """Customers' balances; what they were given or sold; what their calls were charged."""
        with outages():
            row = await self._pool.fetchrow(self._sql["outstanding"], timeout=None)
        assert row is not None, "sums are one row"
        return row["balances"], row["granted"], row["debited"]

    async def wrong_prices(self, day: date, *, seed: str, count: int) -> tuple[int, list[str]]:
        """Recompute a sample of the day's calls: how many there were, and which have another price than was charged."""
        cards = await recorded_cards(self._pool)
        with outages():
            rows = await self._pool.fetch(self._sql["sample"], *day_bounds(day), seed, count, timeout=None)
        wrong = []
        for row in rows:
            card = cards.get(row["rate_version"])
            usage = msgspec.json.decode(row["usage"], type=Usage)
            expected = None if card is None else recompute(card, row["rate_key"], usage)
            if expected != Price(row["cost"], row["rounding"]):
                said = "no price" if expected is None else f"{expected.cost} µcr"
                wrong.append(f"request {row['request_id']}: charged {row['cost']} µcr, recomputed {said}")
        return len(rows), wrong

    async def shadow(self, day: date) -> tuple[int, MicroCredits, MicroCredits]:
        """The calls that were billed in shadow: how many, what real billing would charge, what shadow billing did.

        Real billing is the rate card's price of their usage; what has no rate (a lapse, a kept hold) is taken as it is.
        Raises `CostUnknown`.
        """
        cards = await recorded_cards(self._pool)
        with outages():
            rows = await self._pool.fetch(self._sql["shadow"], *day_bounds(day), timeout=None)
        real = 0
        for row in rows:
            if not row["rate_key"]:
                real += row["cost"]
                continue
            card = cards.get(row["rate_version"])
            named = None if card is None else card.rate_named(row["rate_key"])
            if named is None:
                raise CostUnknown(f"no recorded rate card has {row['rate_version']} {row['rate_key']}")
            usage = Usage(*(row[name] for name in Usage.__struct_fields__))
            real += cost_exact(usage, named[1]) + row["rounding"]
        return sum(row["calls"] for row in rows), real, sum(row["due"] for row in rows)

    async def topped_up(self, day: date) -> set[str]:
        """The payments whose top-ups were recorded on that day."""
        with outages():
            rows = await self._pool.fetch(self._sql["topped_up"], *day_bounds(day), timeout=None)
        return {row["payment_intent_id"] for row in rows}

    async def payments(self, intents: Iterable[str]) -> dict[str, BookedPayment]:
        """What the books have of these payments; those without a top-up are left out."""
        asked = sorted(intents)
        found: dict[str, BookedPayment] = {}
        for start in range(0, len(asked), INTENTS_AT_ONCE):
            with outages():
                rows = await self._pool.fetch(self._sql["payments"], asked[start : start + INTENTS_AT_ONCE])
            found |= {row["payment_intent_id"]: _booked(row) for row in rows}
        return found

    async def payouts(self, ids: Iterable[str], day: date, *, is_live: bool) -> dict[str, int]:
        """The cents that the books have of these payouts, and of those of that day in live or in test mode.

        Who is not in them is left out.
        """
        with outages():
            rows = await self._pool.fetch(self._sql["payouts"], list(ids), *day_bounds(day), is_live)
        return {row["id"]: row["posted"] // UCR_PER_CENT for row in rows}

    async def own_fees(self, ids: Iterable[str]) -> dict[str, int]:
        """The cents that the books have of these, by their balance transactions."""
        with outages():
            rows = await self._pool.fetch(self._sql["own_fees"], list(ids))
        return {row["id"]: row["cents"] for row in rows}


class Reports:
    """What reconciliations found."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("reconciliation")

    async def keep(self, report: Report) -> None:
        stored = msgspec.json.encode(_Stored(not report.outages, report)).decode()
        with outages():
            await self._pool.execute(self._sql["keep"], report.day, not report.mismatches, stored)

    async def newest(self, day: date | None = None) -> KeptReport | None:
        """The newest report, or the newest of that day."""
        with outages():
            row = await self._pool.fetchrow(self._sql["newest"], day)
        if row is None:
            return None
        return KeptReport(msgspec.json.decode(row["report"], type=_Stored).report, row["recorded_at"])

    async def due(self, last: date, *, days: int) -> date | None:
        """Of the `days` days up to `last` without a whole report, the one whose turn it is: the newest, at first."""
        first = datetime.combine(last - timedelta(days=days - 1), time())
        with outages():
            found: date | None = await self._pool.fetchval(self._sql["due"], first, datetime.combine(last, time()))
        return found

    @asynccontextmanager
    async def claimed(self) -> AsyncIterator[bool]:
        """Whether nobody else is at it, for as long as the block runs. Who dies lets go of it."""
        async with AsyncExitStack() as stack:
            with outages():
                connection = await stack.enter_async_context(self._pool.acquire())
                is_ours: bool = await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK)
            try:
                yield is_ours
            finally:
                if is_ours:
                    with outages():
                        await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)


def _booked(row: Any) -> BookedPayment:
    return BookedPayment(
        order=Order(row["amount_cents"], row["currency"], row["is_live"], row["bonus"]),
        tax=row["posted_tax"] // UCR_PER_CENT,
        sums=PaymentSums(
            received=(row["posted_paid"] + row["posted_tax"]) // UCR_PER_CENT,
            fees=row["posted_fees"] // UCR_PER_CENT,
            returned=row["posted_returned"] // UCR_PER_CENT,
        ),
        refunds=msgspec.json.decode(row["refunds"], type=dict[str, int]),
    )
