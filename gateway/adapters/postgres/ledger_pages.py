"""The ledger's lines of one account, in pages that follow on each other by a cursor."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from gateway.adapters.postgres.accounts import LedgerLine, line_of
from gateway.adapters.postgres.database import Pool, load_queries, outages

# Less than any transfer's id: at a bound it leaves all of an earliest moment in, and all of a last one out.
NO_TRANSFER = "00000000-0000-0000-0000-000000000000"


class Cursor(NamedTuple):
    """The line that a page ended with."""

    recorded_at: datetime
    transfer_id: UUID


class Wanted(msgspec.Struct, frozen=True):
    """Which lines: of one account, recorded in [since, until), of one kind or ("") of any."""

    account_id: str
    since: datetime
    until: datetime
    kind: str = ""


class LedgerPages:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("ledger_pages")

    async def newest_first(self, wanted: Wanted, lines_max: int, after: Cursor | None = None) -> list[LedgerLine]:
        since, until, last_id = wanted.since, wanted.until, NO_TRANSFER
        if after is not None and after.recorded_at < until:
            until, last_id = after.recorded_at, str(after.transfer_id)
        return await self._page("back", wanted, since, until, last_id, lines_max)

    async def oldest_first(self, wanted: Wanted, lines_at_once: int) -> AsyncIterator[list[LedgerLine]]:
        """All the lines, a page at a time; what is recorded meanwhile is in it if it is before `until`."""
        since, last_id = wanted.since, NO_TRANSFER
        while lines := await self._page("forth", wanted, since, wanted.until, last_id, lines_at_once):
            yield lines
            since, last_id = lines[-1].recorded_at, lines[-1].id

    async def _page(
        self, query: str, wanted: Wanted, since: datetime, until: datetime, last_id: str, lines_max: int
    ) -> list[LedgerLine]:
        with outages():
            rows = await self._pool.fetch(
                self._sql[query], wanted.account_id, since, until, wanted.kind, last_id, lines_max
            )
        return [line_of(row) for row in rows]
