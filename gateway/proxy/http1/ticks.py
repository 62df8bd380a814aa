"""Coarse time for many connections: one timer counts ticks and calls a sweep; nobody sets a timer per request."""

import asyncio
from collections.abc import Callable
from math import ceil, floor


class Ticker:
    """Counts ticks of `period_s` in `now`, and calls `sweep` at each."""

    __slots__ = ("_handle", "_loop", "_period_s", "_sweep", "now")

    def __init__(self, period_s: float, sweep: Callable[[int], None]) -> None:
        self.now = 0
        self._period_s = period_s
        self._sweep = sweep
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None

    def ticks(self, timeout_s: float) -> int:
        """How many ticks must have been counted for `timeout_s` to have passed for sure."""
        return ceil(timeout_s / self._period_s) + 1

    def ticks_within(self, timeout_s: float) -> int:
        """After so many ticks the next one still comes within `timeout_s`; negative: it may not."""
        return floor(timeout_s / self._period_s) - 1

    def start(self) -> None:
        """Start counting, unless it counts already."""
        if self._handle is None:
            self._loop = asyncio.get_running_loop()
            self._handle = self._loop.call_later(self._period_s, self._tick)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _tick(self) -> None:
        assert self._loop is not None
        self._handle = self._loop.call_later(self._period_s, self._tick)
        self.now += 1
        self._sweep(self.now)
