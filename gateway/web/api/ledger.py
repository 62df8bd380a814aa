"""The ledger for the account that calls: `GET /api/ledger` in pages, `GET /billing/ledger/export.csv` as one stream."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import structlog
from aiohttp import web

from gateway.adapters.postgres.accounts import LedgerLine
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.postgres.ledger_pages import BadCursor, Cursor, LedgerPages, Wanted, read_cursor
from gateway.core.accounting.books import csv_line
from gateway.core.errors import BillingUnavailable, InvalidRequest
from gateway.core.money import format_credits
from gateway.web.access import Access

log = structlog.get_logger(__name__)

LIMIT_DEFAULT, LIMIT_MAX = 100, 1000
LINES_AT_ONCE = 1000
KIND = re.compile(r"[a-z_]{1,40}")
COLUMNS = (
    "recorded_at", "event_at", "kind", "credits", "amount_ucr", "model", "outcome", "correlation_id", "rate_version",
    "reason", "id",
)  # fmt: skip


class LedgerApi:
    def __init__(self, access: Access, pages: LedgerPages, *, now: Callable[[], datetime]) -> None:
        self._access = access
        self._pages = pages
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/ledger", self.show, allow_head=False),
            web.get("/billing/ledger/export.csv", self.export, allow_head=False),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """The newest lines first; `nextCursor` is null on the last page."""
        wanted = await self._wanted(request)
        limit = _limit(request)
        try:
            after = read_cursor(request.query["cursor"]) if "cursor" in request.query else None
        except BadCursor as error:
            raise InvalidRequest("cursor is none that this endpoint gave.", param="cursor") from error
        try:
            lines = await self._pages.newest_first(wanted, limit + 1, after)
        except LedgerUnavailable as error:
            raise BillingUnavailable(retry_after_s=1) from error
        shown, more = lines[:limit], lines[limit:]
        cursor = Cursor(shown[-1].recorded_at, shown[-1].id).text() if more else None
        return web.json_response({"object": "list", "data": [_line(line) for line in shown], "nextCursor": cursor})

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


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(LIMIT_DEFAULT))
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:6]) <= LIMIT_MAX:
        raise InvalidRequest(f"limit is a whole number from 1 to {LIMIT_MAX}.", param="limit")
    return int(text)


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


def _line(line: LedgerLine) -> dict[str, Any]:
    return {
        "id": line.id,
        "kind": line.kind,
        "amount": format_credits(line.amount),
        "amountUcr": line.amount,
        "correlationId": line.request_id,
        "rateVersion": line.rate_version,
        "model": line.model,
        "outcome": line.outcome,
        "reason": line.reason,
        "eventAt": iso(line.event_at),
        "recordedAt": iso(line.recorded_at),
    }


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


def iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
