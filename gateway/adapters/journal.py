"""The journal: settlements that Redis could not take, on disk until it can. What `append` returned from is durable.

One file for each gateway process, locked while the process lives. Each record is a line, `LENGTH CRC32 JSON`, so that
one torn by a crash is recognised. What cannot be read is reported and kept: nothing vanishes but by `discard`.
"""

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import Collection
from pathlib import Path
from zlib import crc32

import msgspec
import structlog

from gateway.core.holds import Settlement

log = structlog.get_logger(__name__)

SUFFIX = ".journal"
OPEN_TRIES = 50
OPEN_PAUSE_S = 0.01

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Settlement).decode


class JournalFull(Exception):
    """The journal has reached its bound; the settlement is not on disk."""


class JournalInUse(Exception):
    """Another running process uses this journal."""


class Journal:
    def __init__(self, path: Path, *, bytes_max: int = 1 << 30) -> None:
        """Open or create the journal `path`, named `*.journal`, and lock it. Blocks: for start only.

        Raises `JournalInUse`, or the `OSError` of the disk.
        """
        if path.suffix != SUFFIX:
            raise ValueError(f"a journal is called *{SUFFIX}, or no other process would find it: {path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._bytes_max = bytes_max
        self._file = _open_own(path)
        self._bytes = _cut_torn_end(self._file)
        _sync_folder(path)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._next_commit: asyncio.Task[None] | None = None  # takes all that is waiting by the time it starts
        self._commit: asyncio.Task[None] | None = None
        self._disk = asyncio.Lock()  # one user of the file at a time

    async def append(self, settlement: Settlement) -> None:
        """Return once `settlement` is durable. Raises `JournalFull`, or the `OSError` of the disk.

        Settlements that come while others are being written share the next write and its fsync.
        """
        line = _line_of(settlement)
        if self._bytes + self._waiting_bytes + len(line) > self._bytes_max:
            raise JournalFull
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        if self._next_commit is None:
            self._next_commit = asyncio.create_task(self._write_waiting(), name="journal commit")
        await asyncio.shield(self._next_commit)

    async def _write_waiting(self) -> None:
        async with self._disk:
            lines, self._waiting, self._waiting_bytes = self._waiting, [], 0
            self._commit, self._next_commit = self._next_commit, None
            await asyncio.to_thread(self._write, b"".join(lines))

    def _write(self, data: bytes) -> None:
        try:
            _write_whole(self._file, data)
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._bytes)  # the next record must not follow half of this one
            raise
        self._bytes += len(data)

    def replay(self) -> list[Settlement]:
        """All settlements on disk, in the order of their coming. Blocks: for start only."""
        return list(_settlements(_read_whole(self._file), self.path).values())

    async def discard(self, request_ids: Collection[str]) -> None:
        """Forget these settlements: Redis or Postgres has them. Raises the `OSError` of the disk."""
        if not request_ids or not self._bytes:
            return
        async with self._disk:
            await asyncio.to_thread(self._keep_all_but, frozenset(request_ids))

    def _keep_all_but(self, request_ids: frozenset[str]) -> None:
        """Write what stays to a new file and put it in the place of the old one, so that a crash leaves either."""
        data = b"".join(
            line
            for line in _read_whole(self._file).splitlines(keepends=True)
            if (settlement := _read_line(line)) is None or settlement.request_id not in request_ids
        )
        new_path = _successor(self.path)
        new = _open_locked(new_path, create=True)
        try:
            os.ftruncate(new, 0)
            _write_whole(new, data)
            os.fsync(new)
            os.replace(new_path, self.path)
        except OSError:
            os.close(new)
            new_path.unlink(missing_ok=True)
            raise
        old, self._file, self._bytes = self._file, new, len(data)
        os.close(old)
        _sync_folder(self.path)

    def adopt_all(self, folder: Path | None = None) -> list[Settlement]:
        """Take over the journals that dead processes left in `folder` (by default, this journal's own).

        What they hold is durable in this journal before theirs is removed. Raises `JournalFull` or `OSError`, and then
        leaves the rest where it is. Blocks: for start only.
        """
        adopted: dict[str, Settlement] = {}
        for path in sorted((folder or self.path.parent).glob(f"*{SUFFIX}")):
            if path == self.path:
                continue
            try:
                file = _open_locked(path, create=False)
            except (JournalInUse, FileNotFoundError):
                continue
            try:
                _cut_torn_end(file)
                content = _read_whole(file)
                if self._bytes + len(content) > self._bytes_max:
                    raise JournalFull
                self._write(content)
                path.unlink()
                _successor(path).unlink(missing_ok=True)
            finally:
                os.close(file)
            adopted |= _settlements(content, path)
        return list(adopted.values())

    async def close(self) -> None:
        """Finish what is being written and unlock the journal; an empty one is removed."""
        if self._next_commit is not None:
            await asyncio.wait([self._next_commit])
        async with self._disk:
            if not self._bytes:
                self.path.unlink(missing_ok=True)
            os.close(self._file)


def _successor(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _line_of(settlement: Settlement) -> bytes:
    """JSON holds no raw line break, so a damaged record ends where the next one begins."""
    data = _encode(settlement)
    return b"%d %08x %s\n" % (len(data), crc32(data), data)


def _settlements(content: bytes, path: Path) -> dict[str, Settlement]:
    """The settlements on these lines, by request id, the last one of each; what cannot be read is reported."""
    found: dict[str, Settlement] = {}
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        settlement = _read_line(line)
        if settlement is None:
            log.error("journal record unreadable", journal=path.name, line=number)
        else:
            found[settlement.request_id] = settlement
    return found


def _read_line(line: bytes) -> Settlement | None:
    length, _, rest = line.rstrip(b"\n").partition(b" ")
    check, _, data = rest.partition(b" ")
    if length != b"%d" % len(data) or check != b"%08x" % crc32(data):
        return None
    try:
        return _decode(data)
    except msgspec.DecodeError:  # whole, but of another version of this program
        return None


def _open_own(path: Path) -> int:
    """Open this process's journal. A starting neighbour may hold it for a moment, to see whether it is orphaned."""
    for _ in range(OPEN_TRIES):
        try:
            return _open_locked(path, create=True)
        except (JournalInUse, FileNotFoundError):
            time.sleep(OPEN_PAUSE_S)
    return _open_locked(path, create=True)


def _open_locked(path: Path, *, create: bool) -> int:
    """Open `path` and lock it; raises `JournalInUse`. The lock dies with the process."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    file = os.open(path, flags, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its owner may have replaced or removed it just before the lock was free.
        if os.fstat(file).st_ino != os.stat(path).st_ino:
            raise JournalInUse(path.name)
    except BlockingIOError as error:
        os.close(file)
        raise JournalInUse(path.name) from error
    except (OSError, JournalInUse):
        os.close(file)
        raise
    return file


def _read_whole(file: int) -> bytes:
    size = os.fstat(file).st_size
    content = bytearray()
    while len(content) < size:
        part = os.pread(file, size - len(content), len(content))
        if not part:
            break
        content += part
    return bytes(content)


def _write_whole(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        written = os.write(file, rest)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest = rest[written:]


def _cut_torn_end(file: int) -> int:
    """Cut off what a crash left of an unfinished last record, which nobody was told is durable; returns the size."""
    size = _read_whole(file).rfind(b"\n") + 1
    os.ftruncate(file, size)
    return size


def _sync_folder(path: Path) -> None:
    """Make the file's name durable too."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
