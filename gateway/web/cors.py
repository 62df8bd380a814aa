"""Which other sites' pages may read /api: those on a list, by their exact origin. No cookie is ever looked at."""

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

METHODS = "GET, POST, PUT, PATCH, DELETE"
HEADERS = "authorization, content-type, idempotency-key"
EXPOSED = "x-gateway-request-id, retry-after, idempotency-replayed"
MAX_AGE_S = 600

Prepare = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


def preflight(origins: frozenset[str]) -> Middleware:
    """Answers what a browser asks before it sends another site's request."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_asked = request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        if is_asked and _is_shared(request, origins):
            headers = {
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: HEADERS,
                hdrs.ACCESS_CONTROL_MAX_AGE: str(MAX_AGE_S),
            }
            return web.Response(status=204, headers=headers)
        return await handler(request)

    return answer


def share(origins: frozenset[str]) -> Prepare:
    """Tells browsers which pages may read an answer; those of every status, so that a page can tell what is wrong."""

    async def tell(request: web.Request, response: web.StreamResponse) -> None:
        if origins and request.path.startswith("/api/"):
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if _is_shared(request, origins):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request.headers[hdrs.ORIGIN]
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED

    return tell


def _is_shared(request: web.Request, origins: frozenset[str]) -> bool:
    return request.path.startswith("/api/") and request.headers.get(hdrs.ORIGIN) in origins
