"""Many slow streams at once, open until the upstream ends them."""

import asyncio

from bench.load.connection import Connection, Tally, connect, now_s
from bench.orders import HoldStreams, Outcome

HOLD_TIMEOUT_S = 30.0


class HeldStreams:
    """Slow streams that stay open between two orders."""

    def __init__(self, order: HoldStreams) -> None:
        self._order = order
        self._loop = asyncio.get_running_loop()
        self._tally = Tally()
        self._flowing = self._ended = 0
        self._all_flow = asyncio.Event()
        self._all_ended = asyncio.Event()
        self._connections: list[Connection] = []

    async def open(self) -> Outcome:
        started_at = now_s()
        for index in range(self._order.streams):
            connection = await connect(self._order.shot, index, self._tally, self._on_end)
            connection.on_first_byte = self._on_flow
            self._connections.append(connection)
            connection.call(now_s())
            ahead_s = index / self._order.open_per_s - (now_s() - started_at)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
        await self._within(self._all_flow)
        elapsed_s = now_s() - started_at
        failed = self._tally.errors + self._order.streams - self._flowing
        return Outcome(calls=self._flowing, errors=failed, elapsed_s=elapsed_s, complaint=self._tally.complaint)

    async def ended(self) -> Outcome:
        started_at = now_s()
        await self._within(self._all_ended)
        for connection in self._connections:
            connection.close()
        return self._tally.outcome(now_s() - started_at)

    async def _within(self, event: asyncio.Event) -> None:
        try:
            await asyncio.wait_for(event.wait(), HOLD_TIMEOUT_S)
        except TimeoutError:
            self._tally.wrong(f"streams silent or still open after {HOLD_TIMEOUT_S:.0f} s")

    def _on_flow(self) -> None:
        self._flowing += 1
        if self._flowing == self._order.streams:
            self._all_flow.set()

    def _on_end(self, _: Connection) -> None:
        self._ended += 1
        if self._ended == self._order.streams:
            self._all_ended.set()
            self._all_flow.set()
