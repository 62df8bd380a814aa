"""`GET /api/usage`: what an account has used, by day, model, member or key, in its own time zone."""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

import msgspec
from aiohttp import web

from gateway.adapters.postgres.usage_pages import Grouping, UsagePages, UsageSum
from gateway.core.errors import InvalidRequest
from gateway.core.guard.windows import zone_of
from gateway.core.money import format_credits
from gateway.web.access import Access
from gateway.web.operations import Answer, Operation, Query
from gateway.web.pages import PAGING, Page, cursor_of, limit_of, page_of

DAYS_DEFAULT, DAYS_MAX = 30, 400
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)


class UsageShown(msgspec.Struct, frozen=True, rename="camel"):
    """The calls of one day, model, member or key; `group` is null for calls of no member."""

    group: str | None
    calls: int
    credits: str
    credits_ucr: int
    input_tokens: int
    output_tokens: int


def _day(name: str, description: str) -> Query:
    return Query(name, {"type": "string", "format": "date"}, description)


QUERY = (
    Query("groupBy", {"type": "string", "enum": list(GROUPINGS), "default": "day"}, "What is summed up together."),
    _day("from", f"The first day, in the account's time zone; {DAYS_DEFAULT} days ago by default."),
    _day("to", f"The last day; today by default, and at most {DAYS_MAX} days after the first."),
    *PAGING,
)


class UsageApi:
    def __init__(self, access: Access, pages: UsagePages, *, now: Callable[[], datetime]) -> None:
        self._access = access
        self._pages = pages
        self._now = now

    def operations(self) -> list[Operation]:
        what = "What the account has used: days backwards, or models, members or keys."
        return [Operation("GET", "/api/usage", self.show, what, Page[UsageShown], query=QUERY)]

    async def show(self, request: web.Request) -> Answer:
        caller = await self._access.reading(request)
        _refuse_strange(request)
        grouping = next((each for each in GROUPINGS if each == request.query.get("groupBy", "day")), None)
        if grouping is None:
            raise InvalidRequest(f"groupBy is one of {', '.join(GROUPINGS)}.", param="groupBy")
        limit, after = limit_of(request), cursor_of(request, str)
        zone = zone_of(caller.time_zone)
        last = _date(request, "to", self._now().astimezone(zone).date())
        first = _date(request, "from", last - timedelta(days=DAYS_DEFAULT - 1))
        if not timedelta(0) <= last - first < timedelta(days=DAYS_MAX):
            raise InvalidRequest(f"from is no later than to, and at most {DAYS_MAX} days before it.", param="from")
        span_ms = (_start_ms(first, zone), _start_ms(last + timedelta(days=1), zone))
        sums = await self._pages.sums(
            caller.account_id, grouping, span_ms, caller.time_zone, count=limit + 1, after=after
        )
        return Answer(page_of(sums, limit, lambda each: each.group, _shown))


def _refuse_strange(request: web.Request) -> None:
    """A slip like `by=model` would else be answered with days, which look like what was asked for."""
    known = [each.name for each in QUERY]
    for name in request.query:
        if name not in known:
            raise InvalidRequest(f"There is no parameter {name[:64]!r}; there are {', '.join(known)}.", param=name[:64])


def _date(request: web.Request, name: str, default: date) -> date:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = date.min
    if len(text) != len("2026-11-21") or not 2000 <= found.year < 2200:
        raise InvalidRequest(f"{name} is a day like 2026-11-21.", param=name)
    return found


def _start_ms(day: date, zone: ZoneInfo) -> int:
    return int(datetime.combine(day, time(), zone).timestamp()) * 1000


def _shown(found: UsageSum) -> UsageShown:
    return UsageShown(
        found.group or None,
        found.calls,
        format_credits(found.charged),
        found.charged,
        found.input_tokens,
        found.output_tokens,
    )
