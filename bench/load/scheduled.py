"""The open loop: calls start when they are due, whatever the answers do, so a slow answer hides no other."""

import asyncio
import signal
from collections import deque

import msgspec

from bench.load.connection import GRACE_S, Connection, Tally, connect, now_s
from bench.load.requests import Requests
from bench.orders import OpenLoop, Outcome, Shot

START_DELAY_S = 0.05
OPEN_LOOP_CONNECTIONS_MIN, OPEN_LOOP_CONNECTIONS_MAX = 64, 2048


class Schedule:
    """The calls of an open loop to one place: each that is due is sent on an idle connection, a new one, or, when there
    are too many of them, as soon as one is free."""

    def __init__(self, shot: Shot, rate_per_s: float, duration_s: float) -> None:
        self._requests = Requests(shot)
        self._rate_per_s = rate_per_s
        self._loop = asyncio.get_running_loop()
        self.tally = Tally()
        self.all_answered = asyncio.Event()
        self._idle: deque[Connection] = deque()
        self._waiting: deque[float] = deque()
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._calls = int(rate_per_s * duration_s)
        self._sent = self._answered = 0
        self._started_at = 0.0

    async def prepare(self) -> None:
        for _ in range(OPEN_LOOP_CONNECTIONS_MIN):
            await self._open()

    def start(self, at_s: float) -> None:
        self._started_at = at_s

    def end(self) -> Outcome:
        if self._answered < self._calls:
            self.tally.wrong(f"unanswered after {GRACE_S:.0f} s", self._calls - self._answered)
        for task in self._opening:
            task.cancel()
        for connection in self._connections:
            connection.close()
        return self.tally.outcome(now_s() - self._started_at)

    def tick(self) -> None:
        if now_s() < self._started_at:
            return
        due = min(self._calls, int((now_s() - self._started_at) * self._rate_per_s) + 1)
        while self._sent < due:
            scheduled_at = self._started_at + self._sent / self._rate_per_s
            self._sent += 1
            connection = self._idle_connection()
            if connection is not None:
                connection.call(scheduled_at)
            else:
                self._waiting.append(scheduled_at)
                self._grow()

    def _idle_connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
            self._connections.discard(connection)
        return None

    def _grow(self) -> None:
        if len(self._connections) + len(self._opening) < OPEN_LOOP_CONNECTIONS_MAX:
            task = self._loop.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        try:
            connection = await connect(self._requests, len(self._connections), self.tally, self._ended)
        except OSError as error:
            self.tally.wrong(f"cannot connect: {error}")
            return
        self._connections.add(connection)
        self._free(connection)

    def _ended(self, connection: Connection) -> None:
        self._answered += 1
        if self._answered >= self._calls:
            self.all_answered.set()
        if connection.open:
            self._free(connection)
        else:
            self._connections.discard(connection)

    def _free(self, connection: Connection) -> None:
        if self._waiting:
            connection.call(self._waiting.popleft())
        else:
            self._idle.append(connection)


async def open_loop(order: OpenLoop) -> Outcome:
    """An interval timer of the kernel wakes both schedules: the event loop's own timers are too coarse."""
    loop = asyncio.get_running_loop()
    measured = Schedule(order.shot, order.rate_per_s, order.duration_s)
    direct = Schedule(order.direct, order.rate_per_s, order.duration_s)
    await measured.prepare()
    await direct.prepare()
    half_interval_s = 0.5 / order.rate_per_s
    starts_at = now_s() + START_DELAY_S
    measured.start(starts_at)
    direct.start(starts_at + half_interval_s)

    def tick() -> None:
        measured.tick()
        direct.tick()

    loop.add_signal_handler(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, START_DELAY_S, half_interval_s)
    try:
        both = asyncio.gather(measured.all_answered.wait(), direct.all_answered.wait())
        await asyncio.wait_for(both, order.duration_s + GRACE_S)
    except TimeoutError:
        pass  # what is missing is counted below
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        loop.remove_signal_handler(signal.SIGALRM)
    return msgspec.structs.replace(measured.end(), direct=direct.end())
