"""The load generator: raw `asyncio.Protocol` clients on uvloop, in a process of their own (`python -m bench.load`).

Reads one `Order` a line on stdin, writes one `Outcome` a line on stdout, ends at end of file.
Every answer is checked: status 200, and the exact length of the body where it is known.
"""

import asyncio
import signal
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools
import msgspec
import uvloop

from bench import wire
from bench.orders import AwaitStreams, ClosedLoop, HoldStreams, OpenLoop, Order, Outcome, Shot

now_s = time.perf_counter  # uvloop's own clock has whole milliseconds only
GRACE_S = 10.0
START_DELAY_S = 0.05
OPEN_LOOP_CONNECTIONS_MIN, OPEN_LOOP_CONNECTIONS_MAX = 64, 2048
HOLD_TIMEOUT_S = 30.0

Done = Callable[["Connection"], None]


class Tally:
    """What has been answered so far, rightly or not."""

    def __init__(self) -> None:
        self.latencies_s = array("d")
        self.errors = 0
        self.complaint = ""

    def wrong(self, complaint: str, count: int = 1) -> None:
        self.errors += count
        self.complaint = self.complaint or complaint

    def outcome(self, elapsed_s: float) -> Outcome:
        ordered = sorted(self.latencies_s)
        return Outcome(
            calls=len(ordered),
            errors=self.errors,
            elapsed_s=elapsed_s,
            p50_ms=_quantile_ms(ordered, 0.5),
            p99_ms=_quantile_ms(ordered, 0.99),
            max_ms=_quantile_ms(ordered, 1.0),
            complaint=self.complaint,
        )


def _quantile_ms(ordered: list[float], quantile: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] * 1000 if ordered else 0.0


class Connection(asyncio.Protocol):
    """One keep-alive connection, one call at a time; tells its owner when a call has ended or the peer hung up."""

    def __init__(self, shot: Shot, key: str, tally: Tally, done: Done) -> None:
        self._request = wire.head(key, shot.body, host=f"127.0.0.1:{shot.port}", more=shot.headers) + shot.body
        self._answer_bytes = shot.answer_bytes
        self._tally = tally
        self._done = done
        self._parser = httptools.HttpResponseParser(self)
        self._received_bytes = 0
        self._opening = b""
        self._busy = False
        self._since = 0.0
        self.on_first_byte: Callable[[], None] | None = None
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not subclasses
        self.open = True

    def call(self, since: float) -> None:
        """Send the call; its latency counts from `since`, in `now_s`."""
        self._since = since
        self._received_bytes = 0
        self._busy = True
        self._transport.write(self._request)

    def close(self) -> None:
        self._busy = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._opening = str(error).encode()
            self._transport.abort()

    def on_body(self, body: bytes) -> None:
        if not self._received_bytes:
            self._opening = body[:200]
            if self.on_first_byte is not None:
                self.on_first_byte()
        self._received_bytes += len(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 200:
            self._tally.wrong(f"status {status}: {self._opening!r}")
        elif self._answer_bytes not in (self._received_bytes, None) or not self._received_bytes:
            self._tally.wrong(f"{self._received_bytes} bytes instead of {self._answer_bytes}: {self._opening!r}")
        else:
            self._tally.latencies_s.append(now_s() - self._since)
        self._busy = False
        self._done(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._busy:
            self._busy = False
            self._tally.wrong(f"connection lost in a call: {exc or 'closed'} {self._opening!r}")
            self._done(self)


async def connect(shot: Shot, index: int, tally: Tally, done: Done) -> Connection:
    key = shot.keys[index % len(shot.keys)]
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(shot, key, tally, done), "127.0.0.1", shot.port)
    return connection


async def closed_loop(order: ClosedLoop) -> Outcome:
    tally, finished = Tally(), asyncio.Event()
    started = 0
    idle: set[Connection] = set()

    def next_call(connection: Connection) -> None:
        nonlocal started
        over = now_s() >= stop_at or (order.calls_max is not None and started >= order.calls_max)
        if over or not connection.open:
            idle.add(connection)
            if len(idle) == order.connections:
                finished.set()
            return
        started += 1
        connection.call(now_s())

    connections = [await connect(order.shot, index, tally, next_call) for index in range(order.connections)]
    started_at = now_s()
    stop_at = started_at + order.duration_s
    for connection in connections:
        next_call(connection)
    try:
        await asyncio.wait_for(finished.wait(), order.duration_s + GRACE_S)
    except TimeoutError:
        tally.wrong(f"unanswered after {GRACE_S:.0f} s", order.connections - len(idle))
    elapsed_s = now_s() - started_at
    for connection in connections:
        connection.close()
    return tally.outcome(elapsed_s)


class Schedule:
    """The calls of an open loop to one place: each that is due is sent on an idle connection, a new one, or, when there
    are too many of them, as soon as one is free."""

    def __init__(self, shot: Shot, rate_per_s: float, duration_s: float) -> None:
        self._shot = shot
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
            connection = await connect(self._shot, len(self._connections), self.tally, self._ended)
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


async def obey(orders: asyncio.StreamReader) -> None:
    held: HeldStreams | None = None
    decoder = msgspec.json.Decoder(Order)
    while line := await orders.readline():
        order = decoder.decode(line)
        match order:
            case ClosedLoop():
                outcome = await closed_loop(order)
            case OpenLoop():
                outcome = await open_loop(order)
            case HoldStreams():
                held = HeldStreams(order)
                outcome = await held.open()
            case AwaitStreams():
                assert held is not None, "no streams were opened"
                outcome, held = await held.ended(), None
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
        sys.stdout.buffer.flush()


async def main() -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    await obey(orders)


if __name__ == "__main__":
    uvloop.run(main())
