"""What a relaying process holds for connections that are stuck: a bound for each, whatever waits at the other end."""

import asyncio
import os
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.proxy.http1.inbound import Inbound
from tests.patience import PATIENCE_S
from tests.proxy.http1.wire import Script, read_head, upstream

CONNECTIONS = 24
BYTES_MAX = 2**20  # for each, as `limits` promises
PIECE = bytes(1 << 16)
STUCK_S = 0.4  # no byte moves for so long


@asynccontextmanager
async def relaying(script: Script) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, int]]:
    """A relay in a process of its own, and its address."""
    async with upstream(script) as origin:
        port = origin.rpartition(":")[2]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.proxy.http1.relay", "0", port), stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            host, _, number = (await process.stdout.readline()).decode().strip().rpartition(":")
            yield process, host, int(number)
        finally:
            process.kill()
            await process.wait()


def resident_bytes(process: asyncio.subprocess.Process) -> int:
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def stuck(moved_bytes: Callable[[], int]) -> None:
    """Return when no byte has moved for a while."""
    async with asyncio.timeout(PATIENCE_S):
        before = -1
        while before != moved_bytes():
            before = moved_bytes()
            assert before < CONNECTIONS * 2**26, "nothing holds the sender back"
            await asyncio.sleep(STUCK_S)


class Flood:
    """Writes without end, and counts what was taken off its hands."""

    def __init__(self) -> None:
        self.written_bytes = 0
        self.began = 0

    async def pour(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        self.began += 1
        while True:
            writer.write(piece)
            await writer.drain()
            self.written_bytes += len(piece)


async def download() -> tuple[int, int]:
    """Clients that ask for endless streams and read nothing: what the relay grew by, and what it was sent."""
    flood = Flood()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await flood.pour(writer, b"%x\r\n%b\r\n" % (len(PIECE), PIECE))

    async with relaying(script) as (process, host, port):
        before = resident_bytes(process)
        clients = [await asyncio.open_connection(host, port, limit=1) for _ in range(CONNECTIONS)]
        for _, writer in clients:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while flood.began < CONNECTIONS:
            await asyncio.sleep(0.01)
        await stuck(lambda: flood.written_bytes)
        grown = resident_bytes(process) - before
        for _, writer in clients:
            writer.transport.abort()
    return grown, flood.written_bytes


async def upload() -> tuple[int, int]:
    """Clients that send endless bodies to an upstream that reads none."""
    flood = Flood()
    heads = asyncio.Semaphore(0)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        heads.release()
        await asyncio.Event().wait()

    async with relaying(script) as (process, host, port):
        before = resident_bytes(process)
        pouring: list[asyncio.Task[None]] = []
        for _ in range(CONNECTIONS):
            _, writer = await asyncio.open_connection(host, port)
            writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n")
            pouring.append(asyncio.create_task(flood.pour(writer, PIECE)))
            await heads.acquire()
        await stuck(lambda: flood.written_bytes)
        grown = resident_bytes(process) - before
        for task in pouring:
            task.cancel()
        await asyncio.wait(pouring)
    return grown, flood.written_bytes


def test_a_fast_upstream_is_held_back_for_clients_that_read_nothing() -> None:
    grown_bytes, sent_bytes = asyncio.run(download())
    assert sent_bytes > CONNECTIONS * BYTES_MAX
    assert grown_bytes < CONNECTIONS * BYTES_MAX


def test_fast_clients_are_held_back_for_an_upstream_that_reads_nothing() -> None:
    grown_bytes, sent_bytes = asyncio.run(upload())
    assert sent_bytes > CONNECTIONS * BYTES_MAX
    assert grown_bytes < CONNECTIONS * BYTES_MAX


def test_a_body_that_comes_in_little_pieces_takes_little_more_than_its_bytes() -> None:
    body = Inbound()
    pieces = [bytes((number % 251, number % 241)) for number in range(100_000)]
    tracemalloc.start()
    try:
        for piece in pieces:
            body.receive(piece)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert body.buffered_bytes == 200_000
    assert held_bytes < 250_000
