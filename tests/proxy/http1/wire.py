"""What the transport's tests have in common: an edge, a scripted upstream, and raw bytes sent and received."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from gateway.core.errors import GatewayError
from gateway.proxy.http1.client import Answer, Buffers, Pool, Timeouts
from gateway.proxy.http1.headers import encode
from gateway.proxy.http1.server import Handler, Limits, Request, Server
from tests.patience import PATIENCE_S

QUICK = Limits(sweep_s=0.02)
HOST = b"Host: a\r\n"

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Edge:
    """A running server and what its handlers raised."""

    def __init__(self, server: Server, address: str, failures: list[BaseException]) -> None:
        self.server = server
        self.failures = failures
        self.host, _, port = address.rpartition(":")
        self.port = int(port)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)

    async def say(self, *sent: bytes) -> bytes:
        """Send each piece by itself; return all that comes until the edge closes."""
        reader, writer = await self.connect()
        async with asyncio.timeout(PATIENCE_S):
            for piece in sent:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            answer = await reader.read()
        await hang_up(writer)
        return answer


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def edge(handler: Handler, limits: Limits = QUICK, drain_s: float = 0.0) -> AsyncIterator[Edge]:
    failures: list[BaseException] = []

    def failed(request: Request, error: BaseException) -> None:
        failures.append(error)

    server = Server(handler, limits, on_error=failed)
    running = Edge(server, await server.start("127.0.0.1"), failures)
    try:
        yield running
    finally:
        await server.drain(drain_s)


async def echo(request: Request) -> None:
    """Answer with what was understood of the request."""
    try:
        body = await request.read_body(1 << 20)
    except GatewayError as error:
        request.respond(error.status, b"", error.body())
        return
    seen = {
        "method": request.method.decode(),
        "target": request.target.decode(),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers],
        "body": body.decode("latin-1"),
    }
    request.respond(200, b"", msgspec.json.encode(seen))


async def hello(request: Request) -> None:
    await request.read_body(1 << 20)
    request.respond(200, encode([(b"X-Path", request.path)]), b"hello")


@contextlib.asynccontextmanager
async def upstream(script: Script) -> AsyncIterator[str]:
    """A server that runs `script` for each connection; yields its origin."""
    scripts: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        scripts.add(task)
        try:
            await script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            scripts.discard(task)
            await hang_up(writer)

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.close()
        for task in tuple(scripts):
            task.cancel()
        if scripts:
            await asyncio.wait(tuple(scripts))


@contextlib.asynccontextmanager
async def pool_to(
    origin: str, *, timeouts: Timeouts | None = None, buffers: Buffers | None = None, connections_max: int = 10
) -> AsyncIterator[Pool]:
    pool = Pool(
        origin,
        timeouts=timeouts,
        buffers=buffers or Buffers(sweep_s=0.02),
        connections_max=connections_max,
    )
    try:
        yield pool
    finally:
        await pool.close()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def always(answer: bytes, *, close: bool = False) -> Script:
    """Answer every request head with the same bytes."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_head(reader)
            writer.write(answer)
            await writer.drain()
            if close:
                return

    return script


def refused(answer: bytes) -> tuple[int, str]:
    """Status and code of the one answer there is, which must be a well-formed OpenAI error that closes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head + b"\r\n"
    return int(head[9:12]), msgspec.json.decode(body)["error"]["code"]


async def ask(pool: Pool, method: bytes = b"GET", body: bytes | AsyncIterator[bytes] | None = None) -> Answer:
    async with asyncio.timeout(PATIENCE_S):
        return await pool.send(method, b"/v1/x?a=%20", [(b"X-A", b"1"), (b"x-a", b"2")], body)
