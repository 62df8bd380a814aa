"""The operations listener: health, readiness, metrics, and what operators do below /ops.

Loopback by default; never on the public listener.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator

import msgspec
from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout, hdrs, web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from gateway.core.errors import Overloaded
from gateway.web.public import tell_errors

# "" = ready; otherwise one line that says what is missing.
Readiness = Callable[[], Awaitable[str]]
Exposition = Callable[[], Awaitable[bytes]]

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CHILD_TIMEOUT_S = 2.0
FORWARD_TIMEOUT_S = 15.0
FORWARDED = (hdrs.AUTHORIZATION, hdrs.CONTENT_TYPE)
ANSWERED = (hdrs.CONTENT_TYPE, hdrs.CACHE_CONTROL, hdrs.RETRY_AFTER, hdrs.ALLOW, "x-should-retry")


def ops_app(readiness: Readiness, metrics: Exposition, routes: Iterable[web.AbstractRouteDef] = ()) -> web.Application:
    """Health, readiness and metrics, for anybody who reaches it; `routes` see to it themselves who asks."""

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        missing = await readiness()
        body = {"status": "unavailable", "reason": missing} if missing else {"status": "ok"}
        return web.json_response(body, status=503 if missing else 200)

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=await metrics(), headers={"Content-Type": METRICS_TYPE})

    app = web.Application(middlewares=[tell_errors])
    app.add_routes([*routes, web.get("/health", health), web.get("/readyz", readyz), web.get("/metrics", show_metrics)])
    return app


async def listen(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, str]:
    """Serve `app`; returns its runner, to be cleaned up, and its URL."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except BaseException:
        await runner.cleanup()
        raise
    bound_host, bound_port = runner.addresses[0][:2]
    return runner, f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"


def exposition(registry: CollectorRegistry) -> Exposition:
    async def show() -> bytes:
        return generate_latest(registry)

    return show


class Fleet:
    """The ops view of several processes as one: their metrics under a `process` label, ready when all are."""

    def __init__(self, session: ClientSession, ops_urls: Callable[[], dict[str, str]]) -> None:
        self._session = session
        self._ops_urls = ops_urls

    async def readiness(self) -> str:
        missing = await asyncio.gather(*(self._missing(name, url) for name, url in self._ops_urls().items()))
        return "; ".join(filter(None, missing))

    async def _missing(self, name: str, url: str) -> str:
        try:
            status, body = await self._get(f"{url}/readyz")
        except (ClientError, TimeoutError):
            return f"{name} does not answer"
        if status == 200:
            return ""
        return f"{name}: {msgspec.json.decode(body).get('reason', 'not ready')}"

    async def metrics(self) -> bytes:
        names, urls = zip(*self._ops_urls().items(), strict=True) if self._ops_urls() else ((), ())
        replies = await asyncio.gather(*(self._get(f"{url}/metrics") for url in urls), return_exceptions=True)
        merged: dict[str, Metric] = {}
        for name, reply in zip(names, replies, strict=True):
            if isinstance(reply, BaseException):
                continue
            for family in text_string_to_metric_families(reply[1].decode()):
                into = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    into.add_sample(sample.name, {**sample.labels, "process": name}, sample.value)
        return generate_latest(_Merged(list(merged.values())))

    def route(self) -> web.AbstractRouteDef:
        """The operations API, wherever it is answered."""
        return web.route("*", "/ops/{tail:.*}", self._forward)

    async def _forward(self, request: web.Request) -> web.Response:
        """A request of the operations API, answered by one of the processes that have the stores."""
        urls = self._ops_urls()
        for name in sorted(urls, key=lambda name: name != "work"):  # the calls go before
            try:
                return await self._forwarded(request, urls[name])
            except ClientConnectorError:  # it is being started again: another one knows the same
                continue
        raise Overloaded("No process is there to answer.", retry_after_s=1)

    async def _forwarded(self, request: web.Request, url: str) -> web.Response:
        headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        timeout = ClientTimeout(total=FORWARD_TIMEOUT_S)
        whole = URL(f"{url}{request.raw_path}", encoded=True)
        body = await request.read()
        async with self._session.request(
            request.method, whole, data=body, headers=headers, timeout=timeout, allow_redirects=False
        ) as reply:
            kept = {name: reply.headers[name] for name in ANSWERED if name in reply.headers}
            return web.Response(status=reply.status, body=await reply.read(), headers=kept)

    async def _get(self, url: str) -> tuple[int, bytes]:
        async with self._session.get(url, timeout=ClientTimeout(total=CHILD_TIMEOUT_S)) as reply:
            return reply.status, await reply.read()


class _Merged(CollectorRegistry):
    """A registry that shows exactly these families."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)
