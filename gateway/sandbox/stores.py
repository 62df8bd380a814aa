"""Both embedded stores on one data directory: who may use it, in which version, and what is running on it now.

Layout: `tollgate.json` (version) · `up.lock` (held while a program runs here) · `state.json` (what it serves, 0600) ·
`postgres/` · `redis/`.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from gateway.sandbox.errors import SandboxError
from gateway.sandbox.files import FileLock, make_private_directory, write_private
from gateway.sandbox.identity import choose_identity, hand_over
from gateway.sandbox.postgres import EmbeddedPostgres
from gateway.sandbox.process import POLL_INTERVAL_S
from gateway.sandbox.store import EmbeddedStore
from gateway.sandbox.valkey import EmbeddedRedis

LAYOUT = 1
LOCK_TIMEOUT_S = 0.5
RESTART_PAUSES_S = (1.0, 2.0, 5.0)

_MARKER, _LOCK, _STATE = "tollgate.json", "up.lock", "state.json"


class _Marker(msgspec.Struct, frozen=True):
    layout: int


class DataDirectory:
    """The claim on one data directory: exclusive while it is held, by this process."""

    def __init__(self, directory: Path) -> None:
        self.path = directory.absolute()
        self._lock = FileLock(self.path / _LOCK)

    async def claim(self) -> None:
        """Make the directory ours, or raise `SandboxError`: in use, of another version, or not Tollgate's at all."""
        make_private_directory(self.path)
        try:
            self._refuse_foreign()
            self.path.chmod(0o700)
            await self._take_lock()
            self._check_layout()
            hand_over(self.path, choose_identity(self.path))
        except OSError as error:
            self._lock.release()
            raise SandboxError(f"Cannot use {self.path}: {error.strerror}; choose another --data directory.") from error
        except BaseException:
            self._lock.release()
            raise

    def release(self) -> None:
        (self.path / _STATE).unlink(missing_ok=True)
        self._lock.release()

    def _refuse_foreign(self) -> None:
        names = {entry.name for entry in self.path.iterdir()} - {"lost+found"}
        if names and not names & {_MARKER, _LOCK}:
            raise SandboxError(f"{self.path} holds other files and no Tollgate data; choose another --data directory.")

    async def _take_lock(self) -> None:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + LOCK_TIMEOUT_S
        while not self._lock.acquire():
            if loop.time() > give_up_at:  # a reader of the state holds it for an instant only
                holder = self._lock.holder()
                remedy = f"stop it (kill {holder})" if holder else "stop it"
                raise SandboxError(
                    f"{self.path} is in use by another Tollgate{f', pid {holder}' if holder else ''}; "
                    f"{remedy}, or choose another --data directory."
                )
            await asyncio.sleep(POLL_INTERVAL_S)
        self._lock.name_holder(os.getpid())

    def _check_layout(self) -> None:
        marker = self.path / _MARKER
        try:
            layout = msgspec.json.decode(marker.read_bytes(), type=_Marker).layout
        except FileNotFoundError:
            write_private(marker, msgspec.json.encode(_Marker(LAYOUT)))
            return
        except msgspec.DecodeError as error:
            raise SandboxError(f"{marker} cannot be read ({error}); choose another --data directory.") from error
        if layout != LAYOUT:
            raise SandboxError(
                f"{self.path} has data layout {layout}, this Tollgate writes layout {LAYOUT}; "
                "use the Tollgate that made it, or choose another --data directory."
            )


def write_state(directory: Path, state: Mapping[str, str]) -> None:
    """Say what runs on `directory` (base_url, ops_url, database_url, redis_url), for other commands of this user."""
    write_private(directory / _STATE, msgspec.json.encode(dict(state)))


def read_state(directory: Path) -> dict[str, str] | None:
    """What runs on `directory` now, or None: nothing does, whatever a killed program may have left written."""
    if not FileLock(directory / _LOCK).is_held():
        return None
    try:
        return msgspec.json.decode((directory / _STATE).read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise SandboxError(f"{directory / _STATE} cannot be read ({error}); is it another user's?") from error


class Stores:
    """An embedded PostgreSQL and Redis on one data directory, from `start` (or `async with`) to `stop`."""

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        self._directory = DataDirectory(directory)
        self.postgres = EmbeddedPostgres(self._directory.path / "postgres", durable=durable)
        self.redis = EmbeddedRedis(self._directory.path / "redis", durable=durable)

    @property
    def database_url(self) -> str:
        return self.postgres.url

    @property
    def redis_url(self) -> str:
        return self.redis.url

    async def start(self) -> None:
        """Start both, or neither: raises `SandboxError`, one line that says what to do."""
        await self._directory.claim()
        try:
            await _together(self.postgres.start(), self.redis.start())
        except BaseException:
            self._kill()
            raise

    async def stop(self) -> None:
        """Stop both cleanly, within a bound; what still runs then is killed."""
        try:
            await _together(self.postgres.stop(), self.redis.stop())
        finally:
            self._kill()

    def _kill(self) -> None:
        self.postgres.kill()
        self.redis.kill()
        self._directory.release()

    async def supervise(self, on_restart: Callable[[str], None]) -> None:
        """Start again, on the same port, whichever store ends, until it cannot be. Cancel it before `stop`."""
        await _together(_keep_up(self.postgres, on_restart), _keep_up(self.redis, on_restart))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def _keep_up(store: EmbeddedStore, on_restart: Callable[[str], None]) -> None:
    while True:
        status = await store.wait()
        on_restart(f"{store.name} ended with status {status} and is started again")
        for pause_s in RESTART_PAUSES_S:
            try:
                await store.start()
            except SandboxError as error:  # killed again as it started, or for now without memory or disk
                on_restart(f"{error}; tried again in {pause_s:.0f} s")
                await asyncio.sleep(pause_s)
            else:
                break
        else:
            await store.start()


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """Run `works` at once; when one fails the others are cancelled, and the first error is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
