"""The OpenAPI document of the control plane, written from the list of its operations."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from gateway.web.operations import Operation

_PARAMETER = re.compile(r"\{(\w+)\}")
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    "description": "Sent again with the same key and body, the request creates nothing more: it is answered 200 with"
    " what it created, without its secret, and Idempotency-Replayed: true. With another body: 409.",
}


class ErrorDetails(msgspec.Struct):
    """What was refused; beside these, what the caller can act on."""

    message: str
    type: str
    code: str
    param: str | None


class Error(msgspec.Struct):
    """The OpenAI error shape."""

    error: ErrorDetails


class File(NamedTuple):
    """The type of an answer that is no JSON."""

    media_type: str


def document_route(path: str, operations: Sequence[Operation], *, title: str, version: str) -> web.RouteDef:
    """Serves the document, written once, to anybody."""
    written = msgspec.json.encode(document(operations, title=title, version=version))

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=written, content_type="application/json")

    return web.get(path, show)


def document(operations: Sequence[Operation], *, title: str, version: str) -> dict[str, Any]:
    """The document, as JSON values."""
    kinds = [kind for each in operations for kind in (each.takes, each.answers) if _has_schema(kind)]
    schemas, components = msgspec.json.schema_components(
        [*dict.fromkeys(kinds), Error], ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip([*dict.fromkeys(kinds), Error], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(operation.path)
    ]
    parameters += [
        {"name": each.name, "in": "query", "schema": each.schema, "description": each.description}
        for each in operation.query
    ]
    if operation.creates:
        parameters.append(_IDEMPOTENCY)
    told = {"description": "What was asked for.", "content": _content(operation.answers, schema_of)}
    statuses = dict.fromkeys([operation.status, *([200] if operation.creates else [])], told)
    refused = {"description": "A refusal.", "content": _content(Error, schema_of)}
    written: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _name_of(operation),
        "parameters": parameters,
        "responses": {str(status): answer for status, answer in statuses.items()} | {"4XX": refused, "5XX": refused},
        "security": [] if operation.is_open else [{"bearer": []}],
    }
    if operation.takes is not None:
        body = {"content": _content(operation.takes, schema_of), "required": operation.needs_body}
        written["requestBody"] = body
    return written


def _content(kind: Any, schema_of: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    if isinstance(kind, File):
        return {kind.media_type: {"schema": {"type": "string"}}}
    return {"application/json": {"schema": schema_of[kind]}}


def _has_schema(kind: Any) -> bool:
    return kind is not None and not isinstance(kind, File)


def _name_of(operation: Operation) -> str:
    parts: Iterable[str] = re.findall(r"[A-Za-z]+", operation.path)
    return operation.method.lower() + "".join(part.capitalize() for part in parts)
