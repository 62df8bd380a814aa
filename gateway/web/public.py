"""The control plane on the public listener: what customers and Stripe ask for beside the OpenAI API.

Its requests come through the data plane's edge, one by one; see `proxy.http1.handover`. Every error has the OpenAI
shape, and none tells what went wrong inside.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from gateway.core.errors import BodyTooLarge, GatewayError, InvalidRequest, MethodNotAllowed, NotFound
from gateway.web.cors import preflight, share

log = structlog.get_logger(__name__)

REQUEST_ID = "x-gateway-request-id"

# That a handed-over request has beside its own: Host, Content-Length, Connection, its id.
ADDED_HEADERS_MAX = 4


def public_app(
    *, body_bytes_max: int, routes: Iterable[web.AbstractRouteDef] = (), origins: frozenset[str] = frozenset()
) -> web.Application:
    """The application, with every path of it; pages of `origins` may read /api."""
    app = web.Application(middlewares=[preflight(origins), tell_errors], client_max_size=body_bytes_max)
    app.add_routes(routes)
    app.on_response_prepare.append(_finish_head)
    app.on_response_prepare.append(share(origins))
    return app


def public_runner(app: web.Application) -> web.AppRunner:
    """What runs `app`. Its handlers end whether their client waits or not, but for the end of a drain."""
    return web.AppRunner(app, handle_signals=False, handler_cancellation=True)


def protocol_of(runner: web.AppRunner, *, head_bytes_max: int, header_count_max: int) -> Callable[[], asyncio.Protocol]:
    """Makes the protocol of one more connection, once `runner` is set up. Its bounds are those of the edge."""

    options: dict[str, Any] = {
        "access_log": None,
        "auto_decompress": False,
        "max_line_size": head_bytes_max,
        "max_field_size": head_bytes_max,
        "max_headers": header_count_max + ADDED_HEADERS_MAX,
    }

    def make_protocol() -> asyncio.Protocol:
        assert runner.server is not None, "the runner is not set up"
        return _Connection(runner.server, loop=asyncio.get_running_loop(), **options)

    return make_protocol


class _Connection(web.RequestHandler):
    """Says nothing of a request that its parser refuses (two Content-Types, say): the edge words every refusal."""

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> NoReturn:
        raise ConnectionAbortedError(message)


async def _finish_head(request: web.Request, response: web.StreamResponse) -> None:
    """The answer carries its id; whether the client's connection goes on is for the edge to say."""
    response.headers[REQUEST_ID] = request.headers.get(REQUEST_ID, "")
    response.headers.popall(hdrs.CONNECTION, None)
    response.headers.popall(hdrs.SERVER, None)


@web.middleware
async def tell_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except GatewayError as error:
        return _told(error)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return _told(MethodNotAllowed(f"This path takes {allowed} only."), {hdrs.ALLOW: allowed})
    except web.HTTPException as error:
        if error.status < 400:
            raise
        if error.status == 404 and request.path.startswith("/ops/"):
            return _told(NotFound("There is no such path here: GET /ops/openapi.json describes what there is."))
        kinds: dict[int, type[GatewayError]] = {404: NotFound, 413: BodyTooLarge}
        return _told(kinds.get(error.status, InvalidRequest if error.status < 500 else GatewayError)())
    except Exception as error:  # a bug: the log has all of it, whoever asked is told nothing of it
        log.error("control plane failed", method=request.method, path=request.path, exc_info=error)
        return _told(GatewayError())


def _told(error: GatewayError, more: dict[str, str] | None = None) -> web.Response:
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return web.Response(
        status=error.status, body=error.body(), content_type="application/json", headers=headers | (more or {})
    )
