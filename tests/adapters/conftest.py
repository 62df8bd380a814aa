"""What tests of the adapters share: the owner of the tables, and a clock that controls are set and followed by."""

from collections.abc import Iterator

import psycopg
import pytest

from gateway.adapters.postgres.controls import ControlsFollower
from tests.books import Books
from tests.patience import PATIENCE_S


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection]:
    """The tables' owner, who can do what the service cannot: break the books."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def follower(books: Books, clock: Clock) -> ControlsFollower:
    return ControlsFollower(books.pool, read_timeout_s=PATIENCE_S, now_ms=clock)
