"""Many slow streams at once, open until the upstream ends them."""

import asyncio
from collections.abc import Callable

from bench.load.connection import Connection, Tally, connect, now_s
from bench.load.requests import Requests
from bench.orders import HoldStreams, Outcome

HOLD_TIMEOUT_S = 30.0


class HeldStreams:
    """Slow streams that stay open between two orders."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._flowing = self._ended = 0
        self._changed = asyncio.Event()
        self._connections: list[Connection] = []

    async def open(self, order: HoldStreams) -> Outcome:
        """Open more; the outcome counts all that are open."""
        started_at = now_s()
        requests = Requests(order.shot)
        for index in range(order.streams):
            connection = await connect(requests, index, self._tally, self._on_end)
            connection.on_first_byte = self._on_flow
            self._connections.append(connection)
            connection.call(now_s())
            ahead_s = index / order.open_per_s - (now_s() - started_at)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
        wanted = len(self._connections)
        await self._until(lambda: self._flowing + self._ended >= wanted)
        failed = self._tally.errors + wanted - self._flowing
        elapsed_s = now_s() - started_at
        return Outcome(calls=self._flowing, errors=failed, elapsed_s=elapsed_s, complaint=self._tally.complaint)

    async def ended(self) -> Outcome:
        """Wait until all have ended; the outcome counts those that ended as a stream should."""
        started_at = now_s()
        await self._until(lambda: self._ended >= len(self._connections))
        for connection in self._connections:
            connection.close()
        return self._tally.outcome(now_s() - started_at)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(HOLD_TIMEOUT_S):
                while not is_so():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            silent = len(self._connections) - self._flowing
            open_still = len(self._connections) - self._ended
            self._tally.wrong(f"after {HOLD_TIMEOUT_S:.0f} s {silent} streams were silent, {open_still} open")

    def _on_flow(self) -> None:
        self._flowing += 1
        self._changed.set()

    def _on_end(self, _: Connection) -> None:
        self._ended += 1
        self._changed.set()
