"""Charges: what Postgres has charged in the windows of now, summed up at once or on top of what is settled."""

import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from gateway.adapters.postgres.charges import Charges
from gateway.core.guard.caps import Holder
from gateway.core.guard.windows import windows_at
from tests.books import Books, open_books
from tests.spending import spend

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def books(database_url: str, redis_url: str) -> AsyncIterator[Books]:
    async with open_books(database_url, redis_url) as opened:
        yield opened


@pytest.mark.parametrize("level", ["account", "key"])
@pytest.mark.parametrize("has_month", [True, False])
async def test_what_is_settled_is_summed_up_once_and_what_came_since_beside_it(
    books: Books, level: str, has_month: bool
) -> None:
    account = await books.account()
    charges, windows = Charges(books.pool), windows_at(time.time_ns() // 1_000_000, "UTC")
    holder = Holder(account.id, level, account.id if level == "account" else "k")
    for amount, ago in ((1, 30 * MINUTE), (10, 2 * MINUTE), (100, 0 * MINUTE)):
        await spend(books.pool, account.id, "k", amount, ago)
    settled = await charges.settled(holder, windows, has_month=has_month)
    await spend(books.pool, account.id, "k", 1000)
    await spend(books.pool, (await books.account()).id, "k", 7)

    assert (settled.day, settled.month) == (11, 11)
    quick = await charges.of(holder, windows, has_day=True, has_month=has_month, settled=settled)
    assert quick == await charges.of(holder, windows, has_day=True, has_month=has_month)
    assert (quick.day, quick.month) == (1111, 1111 if has_month else None)
