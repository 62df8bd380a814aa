"""One `up` for all fault tests, with leases short enough to watch them lapse."""

from collections.abc import Iterator

import pytest

from tests.faults.tree import Tree
from tests.up import Stack, running_up

SHORT_LEASES = """
[holds]
lease_ms = 2000
renew_ms = 800
rebuild_grace_ms = 500

[disconnect]
drain_s = 3

[workers]
sweep_ms = 200
"""


@pytest.fixture(scope="package")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("faults")
    config = folder / "short-leases.toml"
    config.write_text(SHORT_LEASES)
    with running_up(folder / "data", "--config", str(config)) as running:
        yield running


@pytest.fixture(scope="package")
def tree(up: Stack) -> Tree:
    return Tree(up.process.pid)
