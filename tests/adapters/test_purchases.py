"""Purchases in PostgreSQL."""

from tests.adapters.permutations import run
from tests.books import Books


async def test_shuffled_repeated_late_and_lost_messages_end_alike_though_two_post_at_once(books: Books) -> None:
    for seed in range(25):
        await run(books, seed)
    await books.require_sound()
