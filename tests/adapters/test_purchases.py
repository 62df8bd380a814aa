"""Purchases in PostgreSQL."""

from collections.abc import AsyncIterator

import pytest

from tests.adapters.permutations import run
from tests.books import Books, open_books


@pytest.fixture
async def books(database_url: str, redis_url: str) -> AsyncIterator[Books]:
    async with open_books(database_url, redis_url) as books:
        yield books


async def test_shuffled_repeated_late_and_lost_messages_end_alike_though_two_post_at_once(books: Books) -> None:
    for seed in range(25):
        await run(books, seed)
    await books.require_sound()
