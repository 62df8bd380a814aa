"""The processes of a running `up` by their part, also after restarts, and how tests end or stop them."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.patience import PATIENCE_S
from tests.processes import command_of, descendants

PARTS = {"serve": "gateway serve", "work": "gateway work", "redis": "valkey-server", "postgres": "bin/postgres"}


class Tree:
    def __init__(self, up_pid: int) -> None:
        self._up_pid = up_pid

    def pid(self, part: str) -> int:
        """The process of `part`; of PostgreSQL's many, the one that is the parent of the others."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for pid in descendants(self._up_pid):
                if PARTS[part] in command_of(pid):
                    return pid
            assert time.monotonic() < deadline, f"{part} does not run"
            time.sleep(0.02)

    def kill(self, part: str) -> int:
        """End `part` as a crash would; returns the process that was."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_restarted(self, part: str, killed: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.pid(part) == killed:
            assert time.monotonic() < deadline, f"{part} was not started again"
            time.sleep(0.02)

    @contextmanager
    def stopped(self, part: str) -> Iterator[None]:
        """Let `part` stand still for as long as the block runs."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
