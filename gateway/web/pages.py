"""Lists in pages that follow on each other by a cursor, alike on every path."""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec
from aiohttp import web

from gateway.core.errors import InvalidRequest
from gateway.web.operations import Query

T = TypeVar("T")
K = TypeVar("K")

LIMIT_DEFAULT, LIMIT_MAX = 100, 1000
CURSOR_LENGTH_MAX = 1000


class Page(msgspec.Struct, Generic[T], frozen=True, rename="camel"):
    """A part of a list; `nextCursor` is null on the last one."""

    data: list[T]
    next_cursor: str | None
    object: str = "list"


PAGING = (
    Query("limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}, "How many."),
    Query("cursor", {"type": "string"}, "The nextCursor of the page before."),
)


def limit_of(request: web.Request) -> int:
    """Raises `InvalidRequest`."""
    text = request.query.get("limit", str(LIMIT_DEFAULT))
    is_short = text.isascii() and text.isdecimal() and len(text) <= len(str(LIMIT_MAX))
    if not is_short or not 1 <= int(text) <= LIMIT_MAX:
        raise InvalidRequest(f"limit is a whole number from 1 to {LIMIT_MAX}.", param="limit")
    return int(text)


def cursor_of(request: web.Request, kind: type[K]) -> K | None:
    """Where the page before ended; raises `InvalidRequest`."""
    text = request.query.get("cursor")
    if text is None:
        return None
    try:
        if len(text) > CURSOR_LENGTH_MAX:
            raise ValueError("too long")
        raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        found = msgspec.json.decode(raw, type=kind)
        if b"\\u0000" in raw or not _is_kept(found):
            raise ValueError("no row holds that")
    except (binascii.Error, ValueError) as error:  # msgspec's own errors are ValueErrors
        raise InvalidRequest("cursor is none that this endpoint gave.", param="cursor") from error
    return found


def _is_kept(value: object) -> bool:
    """Whether a moment, if this holds one, could stand in a row: near year 1 there are some that no database has."""
    if isinstance(value, tuple):
        return all(_is_kept(each) for each in value)
    return not isinstance(value, datetime) or (value.tzinfo is not None and 2000 <= value.year < 3000)


def page_of(found: Sequence[T], limit: int, end_of: Callable[[T], Any], shown: Callable[[T], K]) -> Page[K]:
    """The page of what was found when one more than `limit` was asked for."""
    cursor = None
    if len(found) > limit:
        cursor = base64.urlsafe_b64encode(msgspec.json.encode(end_of(found[limit - 1]))).decode().rstrip("=")
    return Page([shown(each) for each in found[:limit]], cursor)


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
