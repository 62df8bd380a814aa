"""Damaged and contradictory messages against both sides of the transport. `python -m tests.proxy.http1.fuzz`.

What is accepted must be read alike by strict parsers (`judges`); whatever comes, each side must come to an end, serve
the next one rightly, and give its memory back. The first finding ends the run with the bytes and the seed.
"""

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from gateway.proxy.http1.client import Answer, Buffers, Pool, Timeouts, UpstreamFailed
from gateway.proxy.http1.edge import Connection
from gateway.proxy.http1.known import KnownHeads
from gateway.proxy.http1.server import Limits, Server
from tests.proxy.http1.damage import ANSWERS, REQUEST_LINES, REQUESTS, STATUS_LINES, messages, pieces
from tests.proxy.http1.judges import ReadAnswer, judge, judge_answer
from tests.proxy.http1.wire import Edge, echo, edge, hello, pool_to, read_head, upstream

PATIENCE_S = 10.0
HANG_S = 60  # without a tick of the loop: its stack is printed, and the run ends
GROWTH_BYTES_MAX = 48 * 2**20
AT_ONCE = 16
LIMITS = Limits(sweep_s=0.02, linger_timeout_s=0.1)
TIMEOUTS = Timeouts(head_s=0.2, body_idle_s=0.2)  # longer than a busy machine keeps a loop waiting
BUFFERS = Buffers(sweep_s=0.01)
PROBE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nprobe"


class Tally:
    """What was done so far."""

    def __init__(self, seconds: float, streams: int, seed: int, *, is_told: bool) -> None:
        self.streams = self.requests = self.connections = self.answers = self.accepted = 0
        self._is_told = is_told
        self._seed = seed
        self._began_at = self._told_at = time.monotonic()
        self._seconds = seconds
        self._streams_max = streams
        self._resident_bytes_early = 0

    @property
    def is_over(self) -> bool:
        return self.streams >= self._streams_max or time.monotonic() - self._began_at > self._seconds

    def tell(self, *, every_s: float = 10.0) -> None:
        """Print progress now and then; raises AssertionError when memory grows behind the first quarter of the run."""
        now = time.monotonic()
        if now - self._told_at < every_s:
            return
        self._told_at = now
        gc.collect()
        resident_bytes = resident()
        if now - self._began_at > min(self._seconds / 4, 300.0):
            self._resident_bytes_early = self._resident_bytes_early or resident_bytes
            grown_bytes = resident_bytes - self._resident_bytes_early
            assert grown_bytes < GROWTH_BYTES_MAX, f"grew by {grown_bytes} bytes"
        if self._is_told:
            print(
                f"{now - self._began_at:6.0f} s  {self.streams} streams, {self.requests} requests read alike; "
                f"{self.connections} connections; {self.answers} answers, {self.accepted} read alike; "
                f"{resident_bytes / 2**20:.0f} MiB (seed {self._seed})",
                flush=True,
            )


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def converse(running: Edge, parts: list[bytes]) -> None:
    """Send a stream to a real edge, and hang up: it must answer or close."""
    reader, writer = await running.connect()
    try:
        for part in parts:
            if writer.transport.is_closing():
                break
            writer.write(part)
            await asyncio.sleep(0)
        if not writer.transport.is_closing():
            writer.write_eof()
        await reader.read()
    except OSError:
        pass
    finally:
        writer.close()


class Upstream:
    """Answers GET /N with the Nth stream of bytes, as it stands, and anything else with a probe."""

    def __init__(self) -> None:
        self.streams: dict[bytes, tuple[list[bytes], bool]] = {}  # and whether the connection is closed behind it
        self._speaking: set[bytes] = set()

    async def silent(self, target: bytes) -> None:
        """Nothing more is said to `target`: what was said too much lies before what is asked next."""
        while target in self._speaking:
            await asyncio.sleep(0)

    async def script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            target = (await read_head(reader)).split(b" ")[1]
            parts, is_closed = self.streams.get(target, ([PROBE], False))
            self._speaking.add(target)
            try:
                for part in parts:
                    if writer.transport.is_closing():
                        return
                    writer.write(part)
                    await asyncio.sleep(0)
            finally:
                self._speaking.discard(target)
            if is_closed or writer.transport.is_closing():
                return


async def ask(dice: random.Random, pool: Pool, far: Upstream, number: int, data: bytes) -> bool:
    """Get `data` for an answer; returns whether it was taken for one. Raises AssertionError where h11 disagrees."""
    method = dice.choice((b"GET", b"GET", b"HEAD", b"POST"))
    target, is_closed = b"/%d" % number, dice.random() < 0.5
    far.streams[target] = (pieces(dice, data), is_closed)
    try:
        answer = await pool.send(method, target, [], b"" if method == b"POST" else None)
        body = await taken(dice, answer)
    except UpstreamFailed:
        return False
    finally:
        await far.silent(target)
        del far.streams[target]
    judge_answer(method, data, ReadAnswer(answer.status, answer.reason, answer.headers, body), is_closed=is_closed)
    return True


async def taken(dice: random.Random, answer: Answer) -> bytes:
    """The body, in one of the two ways there are."""
    if dice.random() < 0.5:
        return await answer.read(1 << 20)
    pumped: list[bytes] = []
    await answer.pump(pumped.append)
    return b"".join(pumped)


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[None]:
    """End the process with its stack when the loop hangs."""

    async def watch() -> None:
        while True:
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            await asyncio.sleep(1.0)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        faulthandler.cancel_dump_traceback_later()


async def fuzz(*, seed: int, seconds: float = 3600.0, streams: int = 1 << 62, is_told: bool = False) -> Tally:
    """Go on for so long or so many streams; raises AssertionError at the first finding."""
    dice = random.Random(seed)
    tally = Tally(seconds, streams, seed, is_told=is_told)
    connection = Connection(Server(hello), asyncio.get_running_loop())
    known = KnownHeads(1 << 20)
    requests = messages(dice, REQUESTS, REQUEST_LINES)
    answers = messages(dice, ANSWERS, STATUS_LINES)
    far = Upstream()
    async with (
        watched(),
        edge(echo, LIMITS) as running,
        upstream(far.script) as origin,
        pool_to(origin, timeouts=TIMEOUTS, buffers=BUFFERS, connections_max=10 * AT_ONCE) as pool,
    ):
        while not tally.is_over:
            for _ in range(20 * AT_ONCE):
                tally.requests += judge(connection, known, pieces(dice, next(requests)))
                tally.streams += 1
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(converse(running, pieces(dice, next(requests))) for _ in range(AT_ONCE)))
                accepted = await asyncio.gather(
                    *(ask(dice, pool, far, tally.answers + n, next(answers)) for n in range(AT_ONCE))
                )
                probes = await asyncio.gather(*(pool.send(b"POST", b"/probe", [], b"") for _ in range(AT_ONCE)))
                for probe in probes:
                    assert await probe.read(100) == b"probe", "an answer of another request"
                while running.server.connections or running.server.running:
                    await asyncio.sleep(0.001)
            assert running.failures == []
            assert pool.connections == pool.idle, "a connection that nobody uses is kept"
            tally.connections += AT_ONCE
            tally.answers += AT_ONCE
            tally.accepted += sum(accepted)
            tally.tell()
    tally.tell(every_s=0.0)
    return tally


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    uvloop.run(fuzz(seed=options.seed, seconds=options.seconds, is_told=True))
    print("nothing found")
