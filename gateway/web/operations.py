"""What the control plane offers, as data: from one list of operations come the routes and the OpenAPI document."""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.postgres.keys import KeyRefused, NoSuchKey
from gateway.adapters.postgres.members import MemberRefused, NoSuchMember
from gateway.core.errors import BillingUnavailable, InvalidRequest, NotFound

T = TypeVar("T")


class Answer(NamedTuple):
    """The body, as a value that msgspec can encode, and its status."""

    body: Any
    status: int = 200
    is_replay: bool = False


class Query(NamedTuple):
    """One parameter of a query; `schema` is a JSON schema of its value as text."""

    name: str
    schema: dict[str, Any]
    description: str


class Operation(NamedTuple):
    method: str
    path: str
    handle: Callable[[web.Request], Awaitable[Answer]] | None  # None: it is served on its own, and described only
    summary: str
    answers: Any  # the type of the body
    status: int = 200
    takes: Any = None  # the type of the request's body
    query: tuple[Query, ...] = ()
    creates: bool = False  # takes an Idempotency-Key
    needs_body: bool = True
    is_open: bool = False  # anybody may ask


def routes_of(operations: Iterable[Operation]) -> list[web.RouteDef]:
    return [web.route(each.method, each.path, _served(each.handle)) for each in operations if each.handle is not None]


def read_body(body: bytes, kind: type[T]) -> T:
    """Read a request's body; raises `InvalidRequest`, which says what is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body cannot be read: {error}.") from error


def _served(handle: Callable[[web.Request], Awaitable[Answer]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Answers as JSON, and the refusals of what lies behind as those that they are to a customer."""

    async def serve(request: web.Request) -> web.Response:
        try:
            answer = await handle(request)
        except LedgerUnavailable as error:
            raise BillingUnavailable(retry_after_s=1) from error
        except NoSuchKey as error:
            raise NotFound("There is no such key.") from error
        except NoSuchMember as error:
            raise NotFound("There is no such member.") from error
        except (KeyRefused, MemberRefused) as error:
            raise InvalidRequest(str(error), param=_camel(error.param)) from error
        headers = {"Cache-Control": "private, no-store"}
        if answer.is_replay:
            headers["Idempotency-Replayed"] = "true"
        body = msgspec.json.encode(answer.body)
        return web.Response(status=answer.status, body=body, content_type="application/json", headers=headers)

    return serve


def _camel(name: str | None) -> str | None:
    """A field as bodies spell it."""
    return None if name is None else re.sub(r"_(.)", lambda found: found[1].upper(), name)
