"""What the provider costs: booked for each closed day from the usage that the ledger has, and corrected by its bills.

One transfer a model and day, so posting calls stays as fast as it is. Whatever is repeated changes nothing: a day is
booked once, and a bill books only what the books do not have yet.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta

from gateway.adapters.postgres.database import SYSTEM, Connection, Pool, load_queries, outages
from gateway.adapters.postgres.ledger import Ledger
from gateway.adapters.postgres.recorded_cards import recorded_cards
from gateway.core.accounting.adjustments import entries_for_cogs
from gateway.core.accounting.ledger import TransferKind
from gateway.core.calls.usage import Usage
from gateway.core.money import MicroCredits, format_credits
from gateway.core.pricing.provider_costs import Consumption, ModelCost, costs_by_model

# The system's transfers are posted in one shard: its row orders them.
SYSTEM_SHARD = 0
# A transaction carries the time of its begin, so a day may still grow for as long as one can take.
CLOSING_TIME = timedelta(minutes=5)


class BillRefused(Exception):
    """The bill cannot be booked. The message says why."""


def day_start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


class ProviderCosts:
    def __init__(self, pool: Pool, ledger: Ledger, *, now_ms: Callable[[], int]) -> None:
        self._pool = pool
        self._ledger = ledger
        self._now_ms = now_ms
        self._sql = load_queries("provider_costs")
        self._ledger_sql = load_queries("ledger")

    async def of_days(self, first: date, last: date) -> list[ModelCost]:
        """What calls cost by model, from `first` to `last`; raises `CostUnknown` and `LedgerUnavailable`."""
        cards = await recorded_cards(self._pool)
        with outages():
            rows = await self._pool.fetch(
                self._sql["consumption"], day_start(first), day_start(last + timedelta(days=1)), timeout=None
            )
        consumed = [
            Consumption(
                model=row["model"],
                rate_version=row["rate_version"],
                rate_key=row["rate_key"],
                calls=row["calls"],
                charged=row["charged"],
                shadow=row["shadow"],
                unrated=row["unrated"],
                usage=Usage(*(row[name] for name in Usage.__struct_fields__)),
            )
            for row in rows
        ]
        return costs_by_model(consumed, cards)

    async def next_day(self) -> date | None:
        """The first day that is not booked yet, if it is over."""
        with outages():
            last: date | None = await self._pool.fetchval(self._sql["last_booked"])
            if last is None:
                first: datetime | None = await self._pool.fetchval(self._sql["first_usage"], timeout=None)
                day = first.astimezone(UTC).date() if first else None
            else:
                day = last + timedelta(days=1)
        return day if day is not None and self.is_over(day) else None

    def is_over(self, day: date) -> bool:
        now = datetime.fromtimestamp(self._now_ms() / 1000, UTC)
        return now >= day_start(day + timedelta(days=1)) + CLOSING_TIME

    async def book(self, day: date) -> list[ModelCost]:
        """Book the costs of a day that is over; returns them, or nothing if they were booked before."""
        costs = await self.of_days(day, day)
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.fetch(self._ledger_sql["lock_shards"], [SYSTEM_SHARD])
                if await connection.fetchval(self._sql["insert_day"], day) is None:
                    return []
                ids = [await self._post(connection, TransferKind.COGS, f"{each.model}, {day}", each.cost, day)
                       for each in costs]  # fmt: skip
                await connection.execute(
                    self._sql["insert_costs"],
                    day,
                    [each.model for each in costs],
                    [each.calls for each in costs],
                    [each.charged for each in costs],
                    [each.cost for each in costs],
                    ids,
                )
        return costs

    async def correct(self, first: date, last: date, amount: MicroCredits, source: str) -> MicroCredits:
        """Book what the provider asks for these days beyond what is booked; returns the difference (negative: less).

        Raises `BillRefused` for days that are not all booked, or that another bill overlaps without being the same.
        """
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.fetch(self._ledger_sql["lock_shards"], [SYSTEM_SHARD])
                if await connection.fetchval(self._sql["booked_days"], first, last) != (last - first).days + 1:
                    raise BillRefused(
                        f"not every day from {first} to {last} is booked yet: the workers do it once a day is over"
                    )
                other = await connection.fetchrow(self._sql["overlapping_bill"], first, last)
                if other is not None:
                    raise BillRefused(
                        f"the days {other['first_day']} to {other['last_day']} have a bill already: bill the same days"
                    )
                difference: MicroCredits = amount - await connection.fetchval(self._sql["booked"], first, last)
                reason = f"{source}, {first} to {last}: {format_credits(amount)} credits"
                transfer_id = await self._post(connection, TransferKind.COGS_CORRECTION, reason, difference, last)
                await connection.execute(self._sql["insert_bill"], first, last, amount, source, transfer_id)
        return difference

    async def _post(
        self, connection: Connection, kind: TransferKind, reason: str, amount: MicroCredits, day: date
    ) -> str | None:
        if not amount:
            return None
        return await self._ledger.write_transfer(
            connection,
            kind=kind,
            shard=SYSTEM_SHARD,
            account_id=SYSTEM,
            reason=reason,
            event_at_ms=int(day_start(day + timedelta(days=1)).timestamp() * 1000) - 1,
            entries=entries_for_cogs(amount),
        )
