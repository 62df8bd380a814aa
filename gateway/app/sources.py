"""Where time, randomness and ids enter the program."""

import os
import time
from datetime import UTC, datetime

from gateway.core.ids import uuid7


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def now() -> datetime:
    return datetime.now(UTC)


class RequestIds:
    """Makes request ids; asks the system for randomness by the block, since each asking is a system call."""

    _BLOCK_IDS, _ID_BYTES = 400, 10

    def __init__(self) -> None:
        self._block = b""
        self._used = 0

    def __call__(self) -> str:
        if self._used == len(self._block):
            self._block = os.urandom(self._BLOCK_IDS * self._ID_BYTES)
            self._used = 0
        start = self._used
        self._used += self._ID_BYTES
        return uuid7(now_ms(), self._block[start : self._used])


def new_request_id() -> str:
    return uuid7(now_ms(), os.urandom(10))
