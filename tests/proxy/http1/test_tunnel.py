"""Switched connections at the level of sockets, on both event loops: order, ends, and who holds back whom."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from gateway.proxy.http1.client import Pool, UpstreamFailed
from gateway.proxy.http1.server import Limits, Request
from gateway.proxy.http1.tunnel import End, Tunnel, TunnelBounds
from tests.patience import PATIENCE_S
from tests.proxy.http1.wire import HOST, QUICK, Edge, edge, hang_up, pool_to, read_head, upstream

BOUNDS = TunnelBounds(idle_s=PATIENCE_S, total_s=PATIENCE_S, closing_s=PATIENCE_S)
ASK = b"GET /ws HTTP/1.1\r\n%bConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" % HOST
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

Far = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Switched:
    """A tunnel between two raw sockets: `near` is the client's, `far` the upstream's."""

    def __init__(self, running: Edge, pool: Pool, near: Far, far: Far, ends: list[End]) -> None:
        self.edge = running
        self.pool = pool
        self.near_reader, self.near_writer = near
        self.far_reader, self.far_writer = far
        self.ends = ends

    async def ended(self) -> End:
        async with asyncio.timeout(PATIENCE_S):
            while not self.ends:
                await asyncio.sleep(0.01)
        return self.ends[0]


@asynccontextmanager
async def switched(bounds: TunnelBounds = BOUNDS, limits: Limits = QUICK) -> AsyncIterator[Switched]:
    arrived: asyncio.Queue[Far] = asyncio.Queue()
    over = asyncio.Event()
    ends: list[End] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCHED)
        arrived.put_nowait((reader, writer))
        await over.wait()

    async with upstream(script) as origin, pool_to(origin) as pool:

        async def handle(request: Request) -> None:
            _, link = await pool.switch(request.target, request.head.travelling)
            tunnel = Tunnel(bounds)
            tunnel.connect(request.switch(b"X-Line: 1\r\n", tunnel.caller), link.surrender(tunnel.upstream))
            ends.append(await tunnel.run())

        async with edge(handle, limits) as running:
            near = await running.connect()
            near[1].write(ASK)
            assert b"\r\nX-Line: 1\r\n" in await read_head(near[0])
            yield Switched(running, pool, near, await arrived.get(), ends)
            await hang_up(near[1])
            over.set()
            assert running.failures == []


async def test_bytes_pass_both_ways_at_once() -> None:
    data = bytes(range(256)) * 8000
    async with switched() as tunnel, asyncio.timeout(PATIENCE_S):
        tunnel.near_writer.write(data)
        tunnel.far_writer.write(data[::-1])
        heard, answered = await asyncio.gather(
            tunnel.far_reader.readexactly(len(data)), tunnel.near_reader.readexactly(len(data))
        )
    assert (heard, answered) == (data, data[::-1])


async def test_both_connections_are_counted_while_it_runs_and_forgotten_behind_it() -> None:
    async with switched() as tunnel:
        assert (tunnel.edge.server.connections, tunnel.edge.server.running) == (1, 1)
        assert (tunnel.pool.connections, tunnel.pool.idle) == (1, 0)
        tunnel.near_writer.close()
        tunnel.far_writer.close()
        assert await tunnel.ended() is End.CLOSED
        assert (tunnel.edge.server.connections, tunnel.pool.connections) == (0, 0)


async def test_each_side_may_end_first() -> None:
    sides: list[Callable[[Switched], tuple[Far, Far]]] = [
        lambda it: ((it.near_reader, it.near_writer), (it.far_reader, it.far_writer)),
        lambda it: ((it.far_reader, it.far_writer), (it.near_reader, it.near_writer)),
    ]
    for side in sides:
        async with switched() as tunnel, asyncio.timeout(PATIENCE_S):
            (first_reader, first_writer), (second_reader, second_writer) = side(tunnel)
            first_writer.write(b"last words")
            first_writer.write_eof()
            assert await second_reader.read() == b"last words"
            second_writer.write(b"farewell")
            second_writer.write_eof()
            assert await first_reader.read() == b"farewell"
            assert await tunnel.ended() is End.CLOSED


async def test_a_slow_side_holds_the_other_back_and_loses_nothing() -> None:
    async with switched() as tunnel, asyncio.timeout(PATIENCE_S * 2):
        for listener, reader, talker in (
            (tunnel.near_writer, tunnel.near_reader, tunnel.far_writer),
            (tunnel.far_writer, tunnel.far_reader, tunnel.near_writer),
        ):
            transport = cast(asyncio.Transport, listener.transport)
            transport.pause_reading()
            sent = 0
            try:
                while True:
                    talker.write(bytes(1 << 18))
                    sent += 1 << 18
                    assert sent < 1 << 28, "nothing holds the sender back"
                    async with asyncio.timeout(0.3):
                        await talker.drain()
            except TimeoutError:
                transport.resume_reading()
            assert await reader.readexactly(sent) == bytes(sent)


@pytest.mark.parametrize(
    ("bounds", "end"),
    [
        (TunnelBounds(idle_s=0.05, total_s=PATIENCE_S, closing_s=PATIENCE_S), End.IDLE),
        (TunnelBounds(idle_s=PATIENCE_S, total_s=0.05, closing_s=PATIENCE_S), End.TOTAL),
    ],
)
async def test_a_tunnel_ends_at_its_bounds(bounds: TunnelBounds, end: End) -> None:
    async with switched(bounds) as tunnel, asyncio.timeout(PATIENCE_S):
        assert await tunnel.near_reader.read() == b""
        assert await tunnel.far_reader.read() == b""
        assert await tunnel.ended() is end


async def test_what_flows_keeps_a_tunnel_from_being_idle() -> None:
    bounds = TunnelBounds(idle_s=0.3, total_s=PATIENCE_S, closing_s=PATIENCE_S)
    async with switched(bounds) as tunnel:
        for _ in range(8):
            tunnel.near_writer.write(b".")
            assert await tunnel.far_reader.readexactly(1) == b"."
            await asyncio.sleep(0.1)
        assert tunnel.ends == []


async def test_a_client_that_takes_nothing_is_cut_off_as_with_any_answer() -> None:
    async with switched(limits=Limits(sweep_s=0.02, write_stall_timeout_s=0.1)) as tunnel:
        cast(asyncio.Transport, tunnel.near_writer.transport).pause_reading()
        tunnel.far_writer.write(bytes(1 << 24))
        assert await tunnel.ended() is End.CLOSED
        tunnel.near_writer.transport.abort()


async def test_an_upstream_that_does_not_follow_its_clients_end_is_cut_off() -> None:
    async with switched(TunnelBounds(idle_s=PATIENCE_S, total_s=PATIENCE_S, closing_s=0.1)) as tunnel:
        tunnel.near_writer.write_eof()
        assert await tunnel.ended() is End.CLOSED


async def test_a_pool_that_closes_ends_its_tunnels() -> None:
    async with switched() as tunnel, asyncio.timeout(PATIENCE_S):
        await tunnel.pool.close()
        assert await tunnel.near_reader.read() == b""
        assert await tunnel.ended() is End.CLOSED


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        [b"H", b"TTP/1.1 ", b"200 OK\r\nContent-Le", b"ngth: 5\r\n\r\nhel", b"lo"],
        [b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
    ],
)
async def test_a_refusal_is_an_answer_however_it_is_split(pieces: list[bytes]) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01)

    async with upstream(script) as origin, pool_to(origin) as pool:
        answer, _ = await pool.switch(b"/ws", [])
        assert (answer.status, await answer.read(100)) == (200, b"hello")


async def test_a_switch_however_it_is_split_is_one() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        for byte in SWITCHED:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        writer.write(b"behind")
        await reader.read()

    async with upstream(script) as origin, pool_to(origin) as pool:
        answer, link = await pool.switch(b"/ws", [])
        assert answer.status == 101
        link.close()


@pytest.mark.parametrize(
    "junk",
    [
        b"HTTP/1.1 101 X\r\n\r\n",
        b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n: \r\n\r\n",
        b"HTTP/1.1 1010\r\n\r\n",
        b"HTTP/1.1 101 X\r\nX: " + b"x" * 100_000,
        b"HTTP/1.0 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101",
    ],
)
async def test_what_only_looks_like_a_switch_is_a_broken_answer(junk: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(junk)
        await writer.drain()

    async with upstream(script) as origin, pool_to(origin) as pool:
        with pytest.raises(UpstreamFailed):
            await pool.switch(b"/ws", [])
