"""A bare relay on this transport: what it costs by itself. `python -m tests.proxy.http1.relay PORT UPSTREAM_PORT`."""

import asyncio
import signal
import sys

import uvloop

from gateway.proxy.http1.client import AnswerBroken, Pool, UpstreamFailed
from gateway.proxy.http1.headers import encode
from gateway.proxy.http1.server import Request, Server

BODY_BYTES_MAX = 32 * 2**20


class BareRelay:
    """Plain answers are read whole, as a metering gateway does; event streams are pumped, and so is what is PUT."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __call__(self, request: Request) -> None:
        is_pumped = request.method == b"PUT"
        body = request.chunks() if is_pumped else await request.read_body(BODY_BYTES_MAX)
        length = request.length if is_pumped else None
        try:
            answer = await self._pool.send(request.method, request.target, request.head.travelling, body, length=length)
        except UpstreamFailed:
            request.respond(502, b"", b"")
            return
        headers = encode(answer.travelling)
        try:
            if answer.get(b"content-type") != b"text/event-stream":
                whole = await answer.read(BODY_BYTES_MAX)
                request.respond(answer.status, headers, whole, answer.reason)
                return
            request.start(answer.status, answer.reason, headers, length=None)
            request.on_gone(answer.abort)
            request.on_resume(answer.resume)

            def sink(data: bytes) -> None:
                request.write(data)
                if request.paused:
                    answer.pause()

            await answer.pump(sink)
            request.end()
        except AnswerBroken:
            request.abort()


async def serve(port: int, upstream_port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    pool = Pool(f"http://127.0.0.1:{upstream_port}")
    server = Server(BareRelay(pool))
    print(await server.start("127.0.0.1", port), flush=True)
    await stop.wait()
    await server.drain(1.0)
    await pool.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
