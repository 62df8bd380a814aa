"""API calls over HTTP: a request becomes an ask, its reply goes back, unless a fault was ordered for it."""

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from aiohttp import web

from gateway.sandbox.stripe.errors import StripeError
from gateway.sandbox.stripe.routes import Route
from gateway.sandbox.stripe.scenarios import Fault
from gateway.sandbox.stripe.service import Ask, Reply, Stripe

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_NO_FAULT = Fault(does="slow", times=0)


class Exchange:
    """`clock` is the sandbox's time; `happened` is called after anything may have changed."""

    def __init__(self, stripe: Stripe, clock: Callable[[], float], happened: Callable[[], None]) -> None:
        self._stripe = stripe
        self._clock = clock
        self._happened = happened

    def serving(self, route: Route) -> Handler:
        """The handler of one route."""

        async def serve(request: web.Request) -> web.StreamResponse:
            return await self._serve(route, request)

        return serve

    async def _serve(self, route: Route, request: web.Request) -> web.StreamResponse:
        pairs = parse_qsl(request.query_string, keep_blank_values=True)
        body = await request.text()
        fault = self._stripe.faults.take(request.method, request.path) or _NO_FAULT
        if fault.does == "refuse":
            return _cut(request)
        if fault.does == "rate_limit":
            message = "Too many requests hit the API too quickly. This refusal was ordered from the sandbox."
            return _answer(self._stripe.refuse(StripeError(429, "rate_limit_error", message, code="rate_limit")))
        if body and request.content_type != "application/x-www-form-urlencoded":
            message = "Invalid request: the API takes application/x-www-form-urlencoded bodies."
            return _answer(self._stripe.refuse(StripeError(400, "invalid_request_error", message)))
        pairs += parse_qsl(body, keep_blank_values=True)
        ids = tuple(request.match_info.values())
        ask = self._stripe.begin(route, ids, pairs, request.headers, self._clock())
        if isinstance(ask, Reply):
            reply = ask
        else:
            if fault.wait_s:
                await self._wait(ask, fault.wait_s)
            reply = self._do(ask, fault)
            self._happened()
        return _cut(request) if fault.does == "lose_reply" else _answer(reply)

    async def _wait(self, ask: Ask, wait_s: float) -> None:
        try:
            await asyncio.sleep(wait_s)
        except asyncio.CancelledError:
            self._stripe.abandon(ask)
            raise

    def _do(self, ask: Ask, fault: Fault) -> Reply:
        if fault.does == "error":
            return self._stripe.fail(ask)
        return self._stripe.run(ask, self._clock(), broken=fault.does == "error_after")

    async def unknown(self, request: web.Request) -> web.StreamResponse:
        """What is no call: as Stripe answers, so that the SDK raises InvalidRequestError."""
        message = (
            f"Unrecognized request URL ({request.method}: {request.path}). The sandbox simulates a part of Stripe."
        )
        return _answer(self._stripe.refuse(StripeError(404, "invalid_request_error", message)))


def _answer(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, headers=reply.headers)


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
