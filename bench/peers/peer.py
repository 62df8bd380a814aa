"""What the bench needs to know of a peer: how to install it into a directory of its own, and how to start it there."""

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from bench.processes import BenchError, Children
from bench.target import Target


class Peer(ABC):
    name: ClassVar[str]

    @abstractmethod
    def installed(self, home: Path) -> bool:
        """Whether `install` has succeeded in `home`."""

    @abstractmethod
    def install(self, home: Path) -> None:
        """Install into `home`, which may hold an earlier attempt. Raises `BenchError`."""

    @abstractmethod
    def start(self, children: Children, upstream_port: int, home: Path) -> Target:
        """Start on a free loopback port, relaying to the upstream. Raises `BenchError`."""


def install_step(*command: str | Path, cwd: Path | None = None) -> None:
    """Run one command of an installation, its output shown; raises `BenchError` when it fails."""
    parts: Sequence[str] = [str(part) for part in command]
    try:
        ended = subprocess.run(parts, check=False, cwd=cwd)
    except FileNotFoundError as error:
        raise BenchError(f"{parts[0]} is not installed") from error
    if ended.returncode:
        raise BenchError(f"{' '.join(parts)} ended with {ended.returncode}")
