"""What both embedded stores share: a home, a port that lasts, and a server that is up before `start` returns."""

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from gateway.sandbox.errors import SandboxError
from gateway.sandbox.home import Connection, StoreHome
from gateway.sandbox.identity import NOBODY, choose_identity, hand_over, require_reachable
from gateway.sandbox.process import POLL_INTERVAL_S, ServerProcess

START_TIMEOUT_S = 60.0
BIND_TRIES = 5
BIND_PAUSE_S = 0.2


class Launch(msgspec.Struct, frozen=True):
    """How to start a server. `stale` is a file that a killed server leaves behind and that would disturb the next."""

    command: Sequence[str | Path]
    stdin: bytes = b""
    stale: Path | None = None


class EmbeddedStore(ABC):
    """A server on the directory `data`, created at its first start.

    `durable=False` is for tests only: the data survives a kill of the server, but not a crash of the machine.
    `identity` is who the server runs as (see `identity`); by default whatever works here.
    """

    name: ClassVar[str]
    stop_signals: ClassVar[tuple[signal.Signals, ...]]

    def __init__(self, data: Path, *, durable: bool = True, identity: str | None = None) -> None:
        self._home = StoreHome(data)
        self._durable = durable
        self._identity = identity
        self._kept: Connection | None = None
        self._server: ServerProcess | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect; holds the password. The same from the first `start` on, over every restart."""

    @abstractmethod
    async def _prepare(self, identity: str) -> None:
        """Make the home ready for the server; runs before each start."""

    @abstractmethod
    def _launch(self) -> Launch: ...

    @abstractmethod
    async def _is_ready(self) -> bool:
        """Whether this very server, not another program on its port, serves now."""

    @property
    def _connection(self) -> Connection:
        assert self._kept is not None, f"{self.name} was never started"
        return self._kept

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server is not None else None

    def alive(self) -> bool:
        return self._server is not None and self._server.alive()

    async def wait(self) -> int:
        """Wait until the server has ended; returns its exit status, negative for the signal that ended it."""
        assert self._server is not None, f"{self.name} was never started"
        return await self._server.wait()

    async def start(self) -> None:
        """Start the server and return once it serves. After a crash: again, on the same port."""
        assert not self.alive(), f"{self.name} is running"
        restarted = self._kept is not None
        try:
            self._kept = self._kept or self._home.open()
            identity = self._identity or choose_identity(self._home.directory)
            hand_over(self._home.directory, identity)
            await self._prepare(identity)
            for _ in range(BIND_TRIES):
                if await self._serve(identity):
                    return
                if restarted:
                    await asyncio.sleep(BIND_PAUSE_S)
                else:
                    self._kept = self._home.exchange_port(self._kept)
        except OSError as error:
            raise SandboxError(f"{self.name} cannot use {self._home.directory}: {error}") from error
        raise SandboxError(
            f"Port {self._kept.port} of {self.name} is taken by another program; end it and start again."
        )

    async def stop(self) -> None:
        """End the server cleanly, or by force after a bounded wait."""
        if self._server is not None:
            await self._server.stop()

    def kill(self) -> None:
        """End the server now, as a crash would."""
        if self._server is not None:
            self._server.kill()

    def _process(self, identity: str) -> ServerProcess:
        return ServerProcess(self.name, self._home, identity, self.stop_signals)

    async def _serve(self, identity: str) -> bool:
        """Start the server and wait until it serves; returns False when another program has its port."""
        launch = self._launch()
        if identity == NOBODY:
            require_reachable(Path(launch.command[0]))
        server = self._server = self._process(identity)
        try:
            await server.start(launch.command, stdin=launch.stdin, stale=launch.stale)
            async with asyncio.timeout(START_TIMEOUT_S):
                while server.alive():
                    if await self._is_ready():
                        return True
                    await asyncio.sleep(POLL_INTERVAL_S)
        except TimeoutError:
            await server.stop()
            raise SandboxError(f"{self.name} did not start in {START_TIMEOUT_S:.0f} s; see {self._home.log}") from None
        except BaseException:
            server.kill()
            raise
        if "Address already in use" in server.log_tail():
            return False
        raise self._failure("did not start", server)

    def _failure(self, what: str, server: ServerProcess) -> SandboxError:
        return SandboxError(f"{self.name} {what}: {server.last_words()} (see {self._home.log})")
