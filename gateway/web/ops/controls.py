"""`/ops/flags` and `/ops/audit-log`: what is switched, and who changed what."""

from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web

from gateway.adapters.postgres.audit_log import AuditLog, Logged, Signature
from gateway.adapters.postgres.flags import FlagDesk
from gateway.core.access.operators import Role
from gateway.core.errors import InvalidRequest
from gateway.core.guard.flags import Flag, Scope, default_of
from gateway.web.operations import Answer, Operation, Query, read_body
from gateway.web.ops.access import OperatorAccess
from gateway.web.pages import PAGING, Page, cursor_of, limit_of, page_of

ID_MAX = 2**63 - 1


class FlagShown(msgspec.Struct, frozen=True):
    """Within its scope a flag has its value, for everybody else the other one; later, its default."""

    name: str
    value: bool
    default: bool
    percent: int | None
    accounts: list[str] | None
    reason: str
    banner: str
    author: str
    expires_at_ms: int | None


class FlagsShown(msgspec.Struct, frozen=True):
    data: list[FlagShown]


class FlagAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Neither percent nor accounts: for everybody. Without for_s: until it is cleared."""

    name: str
    value: bool
    reason: str
    percent: int | None = None
    accounts: list[str] | None = None
    for_s: int | None = None
    banner: str = ""


class ClearAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    reason: str


class LogLine(msgspec.Struct, frozen=True):
    id: int
    at: datetime
    author: str
    action: str
    subject: str
    reason: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class ControlsApi:
    def __init__(self, access: OperatorAccess, flags: FlagDesk, audit_log: AuditLog) -> None:
        self._access = access
        self._flags = flags
        self._audit_log = audit_log

    def operations(self) -> list[Operation]:
        filters = (
            Query("subject", {"type": "string"}, "Of this."),
            Query("author", {"type": "string"}, "By this one."),
        )
        return [
            Operation("GET", "/ops/flags", self.flags, "Every flag that is set.", FlagsShown),
            Operation("POST", "/ops/flags", self.set, "Set a flag.", FlagShown, takes=FlagAsked),
            Operation("POST", "/ops/flags/clear", self.clear, "Back to the default.", FlagShown, takes=ClearAsked),
            Operation(
                "GET", "/ops/audit-log", self.log, "Every change, the newest first.", Page[LogLine],
                query=(*PAGING, *filters),
            ),
        ]  # fmt: skip

    async def flags(self, request: web.Request) -> Answer:
        await self._access.operator(request, Role.VIEWER)
        return Answer(FlagsShown([_shown(each) for each in await self._flags.list()]))

    async def set(self, request: web.Request) -> Answer:
        operator = await self._access.operator(request, Role.OPERATOR)
        asked = read_body(await request.read(), FlagAsked)
        signature = Signature(operator.name, asked.reason)
        scope = Scope(asked.percent, None if asked.accounts is None else frozenset(asked.accounts))
        for_ms = None if asked.for_s is None else asked.for_s * 1000
        flag = await self._flags.set(asked.name, asked.value, scope, signature, for_ms=for_ms, banner=asked.banner)
        return Answer(_shown(flag))

    async def clear(self, request: web.Request) -> Answer:
        operator = await self._access.operator(request, Role.OPERATOR)
        asked = read_body(await request.read(), ClearAsked)
        return Answer(_shown(await self._flags.clear(asked.name, Signature(operator.name, asked.reason))))

    async def log(self, request: web.Request) -> Answer:
        await self._access.operator(request, Role.VIEWER)
        limit, before_id = limit_of(request), cursor_of(request, int)
        if before_id is not None and not 0 < before_id <= ID_MAX:
            raise InvalidRequest("cursor is none that this endpoint gave.", param="cursor")
        subject, author = (request.query.get(each, "").replace("\0", "") or None for each in ("subject", "author"))
        lines = await self._audit_log.page(before_id=before_id, subject=subject, author=author, count=limit + 1)
        return Answer(page_of(lines, limit, lambda line: line.id, _line))


def _line(line: Logged) -> LogLine:
    return LogLine(line.id, line.at, line.author, line.action, line.subject, line.reason, line.before, line.after)


def _shown(flag: Flag) -> FlagShown:
    accounts = None if flag.scope.accounts is None else sorted(flag.scope.accounts)
    return FlagShown(
        flag.name,
        flag.value,
        default_of(flag.name),
        flag.scope.percent,
        accounts,
        flag.reason,
        flag.banner,
        flag.author,
        flag.expires_at_ms,
    )
