"""Private files of a data directory: written whole or not at all, readable by their owner only; and its locks."""

import fcntl
import os
import tempfile
from pathlib import Path

from gateway.sandbox.child import NOBODY
from gateway.sandbox.errors import SandboxError


def make_private_directory(directory: Path) -> None:
    """Create `directory`, its parents too, for its owner alone; raises `SandboxError` when it cannot be ours."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = directory.stat().st_uid
    except OSError as error:
        raise SandboxError(f"Cannot create {directory}: {error.strerror}; choose another --data directory.") from error
    us = os.geteuid()
    if owner != us and not (us == 0 and owner == NOBODY):
        raise SandboxError(
            f"{directory} belongs to another user (uid {owner}, we are {us}); "
            "run Tollgate as that user, or choose another --data directory."
        )


def write_private(path: Path, content: bytes) -> None:
    """Replace the file at `path` atomically with `content`, mode 0600, on disk before it is visible."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class FileLock:
    """An exclusive flock on a file, which names the pid that took it.

    The kernel drops it with the last process that inherited it: it cannot go stale.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        assert self._descriptor is not None, "the lock is not held"
        return self._descriptor

    def acquire(self) -> bool:
        """Take the lock if it is free; never waits."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def name_holder(self, pid: int) -> None:
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, b"%d\n" % pid, 0)

    def release(self) -> None:
        """Close our side; a child that inherited the lock keeps it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> int | None:
        """The pid that the holder wrote, or None when it is not known."""
        try:
            return int(self._path.read_text())
        except (OSError, ValueError):
            return None

    def is_held(self) -> bool:
        """Whether another open file holds the lock now. Takes it for an instant, so acquirers try more than once."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False
