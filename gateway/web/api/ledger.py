"""The ledger for the account that calls: `GET /api/ledger` in pages, `GET /billing/ledger/export.csv` as one stream."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta

import msgspec
import structlog
from aiohttp import web

from gateway.adapters.postgres.accounts import LedgerLine
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.postgres.ledger_pages import Cursor, LedgerPages, Wanted
from gateway.core.accounting.books import csv_line
from gateway.core.errors import BillingUnavailable, InvalidRequest
from gateway.core.money import format_credits
from gateway.web.access import Access
from gateway.web.operations import Answer, Operation, Query
from gateway.web.pages import PAGING, Page, cursor_of, iso, limit_of, page_of

log = structlog.get_logger(__name__)

LINES_AT_ONCE = 1000
KIND = re.compile(r"[a-z_]{1,40}")
COLUMNS = (
    "recorded_at", "event_at", "kind", "credits", "amount_ucr", "model", "outcome", "correlation_id", "rate_version",
    "reason", "id",
)  # fmt: skip

_MOMENT = {"type": "string", "examples": ["2026-11-21", "2026-11-21T07:00:00Z"]}
LINES = (
    Query("kind", {"type": "string", "pattern": "^[a-z_]{1,40}$"}, "Only movements of this kind, like capture."),
    Query("from", _MOMENT, "A day (UTC) or a moment; from the beginning by default."),
    Query("to", _MOMENT, "A day, all of it, or a moment; until now by default."),
)


class LineShown(msgspec.Struct, frozen=True, rename="camel"):
    """One movement. `amount` is in credits, as a decimal."""

    id: str
    kind: str
    amount: str
    amount_ucr: int
    correlation_id: str | None
    rate_version: str | None
    model: str | None
    outcome: str | None
    reason: str
    event_at: str
    recorded_at: str


class LedgerApi:
    def __init__(self, access: Access, pages: LedgerPages, *, now: Callable[[], datetime]) -> None:
        self._access = access
        self._pages = pages
        self._now = now

    def operations(self) -> list[Operation]:
        summary = "The account's ledger, the newest line first."
        return [Operation("GET", "/api/ledger", self.show, summary, Page[LineShown], query=(*LINES, *PAGING))]

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/billing/ledger/export.csv", self.export, allow_head=False)]

    async def show(self, request: web.Request) -> Answer:
        wanted = await self._wanted(request)
        limit, after = limit_of(request), cursor_of(request, Cursor)
        lines = await self._pages.newest_first(wanted, limit + 1, after)
        return Answer(page_of(lines, limit, lambda line: (line.recorded_at, line.id), _shown))

    async def export(self, request: web.Request) -> web.StreamResponse:
        """Every line, the oldest first. It opens in a spreadsheet, and no cell of it runs."""
        wanted = await self._wanted(request)
        pages = self._pages.oldest_first(wanted, LINES_AT_ONCE)
        try:
            first: list[LedgerLine] = await anext(pages, [])
        except LedgerUnavailable as error:  # before the head is sent, it can still be told
            raise BillingUnavailable(retry_after_s=1) from error
        response = web.StreamResponse(headers={"Content-Disposition": 'attachment; filename="ledger.csv"'})
        response.content_type, response.charset = "text/csv", "utf-8"
        await response.prepare(request)
        # The mark tells spreadsheets that it is UTF-8.
        await response.write(("\ufeff" + csv_line(COLUMNS) + _csv(first)).encode())
        try:
            async for lines in pages:
                await response.write(_csv(lines).encode())
        except LedgerUnavailable as error:
            log.warning("export cut", account_id=wanted.account_id, error=str(error))
            if request.transport is not None:
                request.transport.abort()  # so that nobody takes a part for the whole
            return response
        await response.write_eof()
        return response

    async def _wanted(self, request: web.Request) -> Wanted:
        caller = await self._access.reading(request)
        kind = request.query.get("kind", "")
        if kind and not KIND.fullmatch(kind):
            raise InvalidRequest("kind is the name of a kind of movement, like capture.", param="kind")
        since = _moment(request, "from", datetime(1970, 1, 1, tzinfo=UTC))
        until = min(_moment(request, "to", self._now(), is_end=True), self._now())
        return Wanted(caller.account_id, since, until, kind)


def _moment(request: web.Request, name: str, default: datetime, *, is_end: bool = False) -> datetime:
    """A day (UTC; as an end, all of it) or a moment with its offset."""
    text = request.query.get(name)
    if text is None:
        return default
    try:
        if len(text) == len("2026-11-21"):
            day = datetime.combine(date.fromisoformat(text), time(), UTC)
            return day + timedelta(days=1) if is_end else day
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no offset")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        remedy = "is a day like 2026-11-21, or a moment like 2026-11-21T07:00:00Z"
        raise InvalidRequest(f"{name} {remedy}.", param=name) from error


def _shown(line: LedgerLine) -> LineShown:
    return LineShown(
        id=line.id,
        kind=line.kind,
        amount=format_credits(line.amount),
        amount_ucr=line.amount,
        correlation_id=line.request_id,
        rate_version=line.rate_version,
        model=line.model,
        outcome=line.outcome,
        reason=line.reason,
        event_at=iso(line.event_at),
        recorded_at=iso(line.recorded_at),
    )


def _csv(lines: list[LedgerLine]) -> str:
    return "".join(
        csv_line(
            [
                iso(line.recorded_at),
                iso(line.event_at),
                line.kind,
                format_credits(line.amount),
                line.amount,
                line.model or "",
                line.outcome or "",
                line.request_id or "",
                line.rate_version or "",
                line.reason,
                line.id,
            ]
        )
        for line in lines
    )
