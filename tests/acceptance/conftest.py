"""The whole of Tollgate as an operator runs it: one `tollgate up` a session, driven by its own commands and the SDK."""

import json
import os
import selectors
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60


class Stack:
    """A running `up`, its ready line, and the commands against it."""

    def __init__(self, data: Path, process: subprocess.Popen[str], ready: dict[str, Any]) -> None:
        self.data = data
        self.process = process
        self.ready = ready
        self.base_url: str = ready["base_url"]
        self.ops_url: str = ready["ops_url"]
        self.upstream_url: str = ready["upstream_url"]

    def tollgate(self, *arguments: str, status: int = 0) -> Any:
        """Run one command with --json against this `up`; returns what it printed."""
        done = tollgate(*arguments, "--data", str(self.data), "--json")
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else done.stderr

    def new_caller(self, name: str, credits: int = 1000) -> tuple[str, str]:
        """Create an account with `credits` and a key; returns the account's id and the key."""
        account = self.tollgate("accounts", "create", name)["account"]
        if credits:
            self.tollgate("accounts", "grant", account, str(credits), "--reason", "acceptance test")
        return account, self.tollgate("keys", "issue", account)["key"]

    def settled_account(self, account: str, timeout_s: float = 15) -> dict[str, Any]:
        """The account once nothing of it is held any more."""
        deadline = time.monotonic() + timeout_s
        while True:
            shown: dict[str, Any] = self.tollgate("accounts", "show", account)
            if shown["held_ucr"] == 0:
                return shown
            assert time.monotonic() < deadline, f"still held: {shown}"

    def upstream_log(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.upstream_url}/sandbox/log") as reply:
            entries: list[dict[str, Any]] = json.load(reply)["entries"]
        return entries


def tollgate(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | (env or {}),
    )


@contextmanager
def running_up(data: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Stack]:
    """Run `tollgate up` on `data` until the block ends, then stop it as Ctrl-C would and require a clean end."""
    command = [sys.executable, "-m", "gateway", "up", "--json", "--data", str(data)]
    command += ["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--upstream", "sandbox", *arguments]
    with (data.parent / f"{data.name}.stderr").open("w+") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | (env or {})
        )
        assert process.stdout is not None
        with process.stdout, selectors.DefaultSelector() as selector:
            try:
                selector.register(process.stdout, selectors.EVENT_READ)
                line = process.stdout.readline() if selector.select(START_TIMEOUT_S) else ""
                assert line, f"`up` did not get ready: {Path(log.name).read_text()}"
                yield Stack(data, process, json.loads(line))
            finally:
                process.terminate()
                try:
                    status = process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    raise
        assert status == 0, Path(log.name).read_text()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_up(tmp_path_factory.mktemp("up") / "data") as running:
        yield running
