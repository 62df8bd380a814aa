"""One `tollgate up` for all acceptance tests that do not need one of their own."""

from collections.abc import Iterator

import pytest

from tests.up import Stack, running_up


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_up(tmp_path_factory.mktemp("up") / "data") as running:
        yield running
