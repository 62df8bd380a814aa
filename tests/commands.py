"""The `tollgate` command for tests: each run is a process of its own, forked from one that has imported everything."""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

TIMEOUT_S = 60.0

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


def _main(arguments: tuple[str, ...], environment: dict[str, str], out: Path, err: Path) -> None:
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["tollgate", *arguments]
    from gateway.cli.main import main

    main()
