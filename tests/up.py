"""A real `tollgate up` for tests: started as an operator does, driven by its own commands, stopped as by Ctrl-C."""

import asyncio
import json
import os
import selectors
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from gateway.app.stores import Stores, open_stores
from gateway.cli.accounts import amounts
from gateway.config import load
from gateway.core.money import UCR_PER_CREDIT
from tests.commands import tollgate
from tests.patience import PATIENCE_S

T = TypeVar("T")


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
        """Create an account with `credits` and a key, as the commands do; returns the account's id and the key."""

        async def create(stores: Stores) -> tuple[str, str]:
            account = (await stores.accounts.create(name)).id
            if credits:
                await stores.accounts.grant(account, credits * UCR_PER_CREDIT, "acceptance test")
                await stores.crediter.step()
            return account, (await stores.keys.issue(account))[0]

        return self._with_stores(create)

    def settled_account(self, account: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """What `accounts show` shows once nothing of the account is held any more."""

        async def settled(stores: Stores) -> dict[str, Any]:
            deadline = time.monotonic() + timeout_s
            while (balance := await stores.live_balance(account)).held:
                assert time.monotonic() < deadline, f"still held: {balance}"
                await asyncio.sleep(0.05)
            return dict(amounts(balance))

        return self._with_stores(settled)

    def _with_stores(self, act: Callable[[Stores], Coroutine[Any, Any, T]]) -> T:
        """Act in a loop of its own: a process for each command would take most of the suite's time."""

        async def main() -> T:
            urls = {name: self.ready[name] for name in ("database_url", "redis_url")}
            async with open_stores(load(**urls)) as stores:
                return await act(stores)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, main()).result()

    def upstream_log(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.upstream_url}/sandbox/log") as reply:
            entries: list[dict[str, Any]] = json.load(reply)["entries"]
        return entries


@contextmanager
def running_up(data: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Stack]:
    """Run `tollgate up` on `data` until the block ends, then stop it as Ctrl-C would and require a clean end."""
    command = [sys.executable, "-m", "gateway", "up", "--json", "--data", str(data)]
    command += ["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--upstream", "sandbox", *arguments]
    with (data.parent / f"{data.name}.stderr").open("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | (env or {}))
        assert process.stdout is not None
        with process.stdout, selectors.DefaultSelector() as selector:
            try:
                selector.register(process.stdout, selectors.EVENT_READ)
                line = process.stdout.readline() if selector.select(PATIENCE_S) else ""
                assert line, f"`up` did not get ready: {Path(log.name).read_text()}"
                yield Stack(data, process, json.loads(line))
            finally:
                process.terminate()
                try:
                    status = process.wait(PATIENCE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    raise
        assert status == 0, Path(log.name).read_text()
