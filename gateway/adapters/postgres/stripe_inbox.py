"""Stripe's events as they came, and how far each is: received, then processed, retrying or dead, with the reason."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.adapters.stripe.objects import Told


class Due(msgspec.Struct, frozen=True):
    """An event to be handled now; `attempts` counts this one, and not the `waits`, which decided nothing."""

    id: str
    type: str
    object_id: str
    payment_id: str
    is_live: bool
    attempts: int
    waits: int


class Kept(msgspec.Struct, frozen=True):
    """An event as listings show it."""

    id: str
    type: str
    state: str
    attempts: int
    reason: str
    created_at: datetime
    received_at: datetime
    processed_at: datetime | None
    object_id: str
    source: str


class StripeInbox:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("stripe_inbox")

    async def keep(self, event: Told, headers: Mapping[str, str], source: str) -> bool:
        """Store an event; returns whether there is something to do that was not known before."""
        stored = msgspec.json.encode(dict(headers)).decode()
        row = (event.object_id, event.payment_id, event.is_live, event.created_s, source, event.body, stored)
        with outages():
            return await self._pool.fetchval(self._sql["keep"], event.id, event.type, *row) is not None

    async def claim(self, count: int, lease_s: float) -> list[Due]:
        with outages():
            rows = await self._pool.fetch(self._sql["claim"], count, timedelta(seconds=lease_s))
        return [Due(*row.values()) for row in rows]

    async def processed(self, event_id: str, reason: str = "") -> None:
        await self._finish(event_id, "processed", reason, 0.0)

    async def retry(self, event_id: str, reason: str, after_s: float) -> None:
        await self._finish(event_id, "retrying", reason, after_s)

    async def wait(self, event_id: str, reason: str, after_s: float) -> None:
        """As `retry`, where this attempt does not count."""
        await self._finish(event_id, "retrying", reason, after_s, waits=1)

    async def dead(self, event_id: str, reason: str) -> None:
        """Give it up, until an operator replays it."""
        await self._finish(event_id, "dead", reason, 0.0)

    async def _finish(self, event_id: str, state: str, reason: str, after_s: float, waits: int = 0) -> None:
        with outages():
            await self._pool.execute(self._sql["finish"], event_id, state, reason, timedelta(seconds=after_s), waits)

    async def listing(self, *, state: str = "", kind: str = "", count: int) -> list[Kept]:
        """The newest events, of one state or type if it is named."""
        with outages():
            rows = await self._pool.fetch(self._sql["listing"], state, kind, count)
        return [Kept(*row.values()) for row in rows]

    async def show(self, event_id: str) -> dict[str, Any] | None:
        """All that is known of an event, its body as it came."""
        with outages():
            row = await self._pool.fetchrow(self._sql["show"], event_id)
        return None if row is None else dict(row)

    async def replay(self, *, event_id: str = "", since: datetime | None = None, kind: str = "") -> int:
        """Have events handled again, whatever became of them; returns how many. What was done is not done again."""
        with outages():
            status = await self._pool.execute(self._sql["replay"], event_id, since, kind)
        return int(status.rpartition(" ")[2])

    async def counts(self) -> tuple[dict[str, int], float]:
        """Events that are not processed, by state; and the age in seconds of the oldest that waits."""
        with outages():
            rows = await self._pool.fetch(self._sql["counts"])
        return {row["state"]: row["events"] for row in rows}, max((row["oldest_s"] for row in rows), default=0.0)
