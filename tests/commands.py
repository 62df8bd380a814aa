"""The `tollgate` command for tests: each run is a process of its own, forked from one that has imported everything."""

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

TIMEOUT_S = 60.0
COLUMNS_MAX = 100

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["gateway.cli.main", "gateway.app.process", "gateway.adapters.postgres.audit"])


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def tollgate(*arguments: str, env: Mapping[str, str] | None = None) -> Done:
    """Run one command to its end, with `env` over the environment."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "stdout"), Path(folder, "stderr")
        process = _context.Process(target=_main, args=(arguments, dict(os.environ) | dict(env or {}), out, err))
        process.start()
        process.join(TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"{arguments} did not end: {err.read_text()}")
        return Done(process.exitcode, out.read_text(), err.read_text())


class Desk:
    """Commands against fresh stores."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self._env = {
            "TOLLGATE_DATABASE_URL": database_url,
            "TOLLGATE_REDIS_URL": redis_url,
            "COLUMNS": str(COLUMNS_MAX),
        }

    def json(self, *arguments: str) -> Any:
        return json.loads(self._done(*arguments, "--json").stdout)

    def text(self, *arguments: str) -> str:
        said = self._done(*arguments).stdout
        assert max(map(len, said.splitlines())) <= COLUMNS_MAX, said
        return said

    def refused(self, *arguments: str) -> str:
        done = tollgate(*arguments, env=self._env)
        assert done.returncode != 0
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    def _done(self, *arguments: str) -> Done:
        """Warnings are let pass: without workers, Redis is cold."""
        done = tollgate(*arguments, env=self._env)
        assert (done.returncode, "tollgate:" in done.stderr) == (0, False), done.stderr
        return done


def _main(arguments: tuple[str, ...], environment: dict[str, str], out: Path, err: Path) -> None:
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["tollgate", *arguments]
    from gateway.cli.main import main

    main()
