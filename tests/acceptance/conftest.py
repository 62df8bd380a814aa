"""One `tollgate up` for all acceptance tests that do not need one of their own, and one with two gateways."""

from collections.abc import Iterator

import pytest

from tests.commands import Desk
from tests.up import Stack, running_up

# Of the package, not of the session: idle, an `up` still takes some percent of a core from what runs after these tests.


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_up(tmp_path_factory.mktemp("up") / "data") as running:
        yield running


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two gateways on one port. A test leaves its upstream and its flags as they were."""
    with running_up(tmp_path_factory.mktemp("pair") / "data", "--workers", "2") as running:
        yield running


@pytest.fixture
def desk(database_url: str, redis_url: str) -> Desk:
    return Desk(database_url, redis_url)
