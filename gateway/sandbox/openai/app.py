"""The simulated OpenAI as an application and as a server on the loopback interface, which is the only one it takes."""

import asyncio
import time
from collections.abc import Callable
from typing import Self

import msgspec
from aiohttp import web

from gateway.sandbox.loopback import listen, loopback_address
from gateway.sandbox.openai.answers import ENDPOINTS
from gateway.sandbox.openai.exchange import Exchange
from gateway.sandbox.openai.log import RequestLog
from gateway.sandbox.openai.scenarios import ScenarioError, parse_scenario
from gateway.sandbox.openai.settings import SandboxOpenAISettings

_EXCHANGE = web.AppKey("exchange", Exchange)


def create_app(settings: SandboxOpenAISettings, *, clock: Callable[[], float] = time.time) -> web.Application:
    """Build the application. Run it with `handler_cancellation=True`, so that it sees clients go while it waits."""
    exchange = Exchange(settings, clock)
    app = web.Application(client_max_size=settings.body_bytes_max)
    app[_EXCHANGE] = exchange
    app.router.add_get("/sandbox/log", _show_log)
    app.router.add_delete("/sandbox/log", _clear_log)
    app.router.add_put("/sandbox/scenario", _set_scenario)
    app.router.add_get("/v1/organization/usage/completions", exchange.organization.usage_completions)
    app.router.add_get("/v1/organization/usage/embeddings", exchange.organization.usage_embeddings)
    app.router.add_get("/v1/organization/costs", exchange.organization.costs)
    for path in (*ENDPOINTS, "/{anything:.*}"):
        app.router.add_route("*", path, exchange.serve)
    app.on_shutdown.append(_stop_stalling)
    return app


async def _show_log(request: web.Request) -> web.Response:
    """The log as JSON, oldest first; `?after=SEQUENCE` and `?limit=N` page through it."""
    try:
        after = int(request.query.get("after", "-1"))
        limit = int(request.query["limit"]) if "limit" in request.query else None
    except ValueError as error:
        raise web.HTTPBadRequest(text="after and limit are whole numbers") from error
    log = request.app[_EXCHANGE].log
    entries = [entry.as_json() for entry in log.entries(after, limit)]
    body = {"arrived": log.arrived, "ended": log.ended, "entries": entries}
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


async def _clear_log(request: web.Request) -> web.Response:
    request.app[_EXCHANGE].log.clear()
    return web.Response(status=204)


async def _set_scenario(request: web.Request) -> web.Response:
    """From now on the scenario in the body holds for every request; an empty body ends it."""
    try:
        request.app[_EXCHANGE].scenario = parse_scenario(await request.text())
    except ScenarioError as error:
        raise web.HTTPBadRequest(text=str(error)) from error
    return web.Response(status=204)


async def _stop_stalling(app: web.Application) -> None:
    app[_EXCHANGE].stopping.set()


class SimulatedOpenAI:
    """A running simulated OpenAI; an async context manager.

    `url` is its origin, as `--upstream` takes it; `base_url` is what the SDK takes; `log` is its request log.
    """

    def __init__(
        self,
        settings: SandboxOpenAISettings | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings or SandboxOpenAISettings()
        self._host = loopback_address(host)
        self._port = port
        app = create_app(self._settings, clock=clock)
        self._exchange = app[_EXCHANGE]
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=self._settings.shutdown_timeout_s,
        )
        self.url = ""

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def log(self) -> RequestLog:
        return self._exchange.log

    def set_scenario(self, scenario: str) -> None:
        """From now on `scenario` holds for every request, each request's own header on top of it."""
        self._exchange.scenario = parse_scenario(scenario)

    async def __aenter__(self) -> Self:
        self.url = await listen(self._runner, self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


async def serve(
    host: str,
    port: int,
    settings: SandboxOpenAISettings,
    *,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until cancelled; `on_ready` is told the origin once it listens.

    Raises `ValueError` for an address that is not loopback, `ScenarioError` for a scenario that it does not know, and
    `OSError` if the port is taken.
    """
    if not settings.instance:  # ids of one run differ from those of the last, which a ledger may still hold
        settings = msgspec.structs.replace(settings, instance=f"{time.time_ns():016x}")
    async with SimulatedOpenAI(settings, host=host, port=port) as running:
        if on_ready is not None:
            on_ready(running.url)
        await asyncio.Event().wait()
