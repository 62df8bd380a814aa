"""The yardstick of the bars: aiohttp's server and client, joined by one handler. `python -m … PORT UPSTREAM_PORT`."""

import sys

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "content-length", "te", "upgrade"})
SESSION = web.AppKey("session", ClientSession)
ORIGIN = web.AppKey("origin", str)


async def relay(request: web.Request) -> web.StreamResponse:
    headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
    body = await request.read()
    url = request.app[ORIGIN] + request.path_qs
    async with request.app[SESSION].request(request.method, url, headers=headers, data=body) as answer:
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP]
        if answer.content_type != "text/event-stream":
            plain = web.Response(status=answer.status, body=await answer.read())
            plain.headers.update(kept)
            return plain
        stream = web.StreamResponse(status=answer.status)
        stream.headers.update(kept)
        await stream.prepare(request)
        async for data in answer.content.iter_any():
            await stream.write(data)
        await stream.write_eof()
        return stream


async def serve(port: int, upstream_port: int) -> web.Application:
    app = web.Application(client_max_size=32 * 2**20)
    app[ORIGIN] = f"http://127.0.0.1:{upstream_port}"
    app[SESSION] = ClientSession(
        connector=TCPConnector(limit=0),
        auto_decompress=False,
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None),
    )
    app.router.add_route("*", "/{path:.*}", relay)
    app.on_cleanup.append(lambda closing: closing[SESSION].close())
    return app


if __name__ == "__main__":
    uvloop.install()
    own_port, its_port = int(sys.argv[1]), int(sys.argv[2])
    web.run_app(serve(own_port, its_port), host="127.0.0.1", port=own_port, access_log=None, print=None, backlog=16384)
