"""`/ops/caps/…`: what an account, member, key or plan may use at most, and what is used of it."""

from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.cap_desk import CapDesk, Capped, Standing
from gateway.adapters.redis.credits import CreditsError
from gateway.adapters.redis.link import RedisUnavailable
from gateway.core.access.operators import Role
from gateway.core.errors import BillingUnavailable, InvalidRequest
from gateway.core.guard.caps import UNLIMITED, Caps, Excess, Shortfall
from gateway.core.guard.plans import UNLIMITED_WORD, parse_limit
from gateway.core.guard.windows import ends_at
from gateway.core.money import InvalidAmount, format_credits
from gateway.web.operations import Answer, Operation, read_body
from gateway.web.ops.access import OperatorAccess

IN_CREDITS = ("request", "day", "month")
IN_NUMBERS = ("output_tokens", "requests_a_minute", "tokens_a_minute", "concurrent")

Credits = str | UnsetType | None
Number = int | Literal["unlimited"] | UnsetType | None
Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | UnsetType | None


class CapsWritten(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Credits are decimals; every limit may be "unlimited".

    Asked for, null inherits again, and what is not there stays; told, what is not there is not capped.
    """

    request: Credits = UNSET
    day: Credits = UNSET
    month: Credits = UNSET
    output_tokens: Number = UNSET
    requests_a_minute: Number = UNSET
    tokens_a_minute: Number = UNSET
    concurrent: Number = UNSET
    models_allowed: Names = UNSET
    models_denied: Names = UNSET
    on_output: Excess | UnsetType | None = UNSET
    on_unaffordable: Shortfall | UnsetType | None = UNSET


class CapsAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    caps: CapsWritten
    reason: str


class CapsSet(msgspec.Struct, frozen=True):
    """The caps that are set here; those that are inherited are not told."""

    level: str
    id: str
    name: str
    caps: CapsWritten


class UsedShown(msgspec.Struct, frozen=True):
    """Credits are decimals; null is not counted."""

    day: str | None
    month: str | None
    open_calls: int | None


class ResetsShown(msgspec.Struct, frozen=True):
    """As the account reads clocks."""

    day: str
    month: str


class StandingShown(msgspec.Struct, frozen=True):
    """The caps that hold: of an account with those of its plan; of a member or key its own, which apply in addition."""

    level: str
    id: str
    name: str
    caps: CapsWritten
    used: UsedShown
    resets_at: ResetsShown


class StandingsShown(msgspec.Struct, frozen=True):
    """Of an account, those of its members and keys that have caps follow."""

    data: list[StandingShown]


class CapsApi:
    def __init__(self, access: OperatorAccess, desk: CapDesk) -> None:
        self._access = access
        self._desk = desk

    def operations(self) -> list[Operation]:
        path = "/ops/caps/{who}"
        who = "an account, member or key, by name, e-mail address or id; or of plan:NAME."
        return [
            Operation("GET", path, self.show, f"The caps of {who}", StandingsShown),
            Operation("POST", path, self.set, f"Set caps of {who}", CapsSet, takes=CapsAsked),
        ]

    async def show(self, request: web.Request) -> Answer:
        await self._access.operator(request, Role.VIEWER)
        who = await self._desk.find(request.match_info["who"])
        try:
            standings = await self._desk.standing(who)
        except (RedisUnavailable, CreditsError) as error:
            raise BillingUnavailable("What is used cannot be told right now.", retry_after_s=1) from error
        return Answer(StandingsShown([_standing(each) for each in standings]))

    async def set(self, request: web.Request) -> Answer:
        """What is used is not told, so that caps can be set while Redis is away."""
        operator = await self._access.operator(request, Role.OPERATOR)
        asked = read_body(await request.read(), CapsAsked)
        change = _change(asked.caps)
        who = await self._desk.find(request.match_info["who"])
        caps = await self._desk.set(who, change, Signature(operator.name, asked.reason))
        return Answer(_set(who, caps))


def _change(asked: CapsWritten) -> dict[str, Any]:
    given = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not UNSET}
    return {name: _read(name, value) for name, value in given.items()}


def _read(name: str, value: Any) -> Any:
    if value is None or name not in (*IN_CREDITS, *IN_NUMBERS):
        return value
    try:
        return parse_limit(name, str(value))
    except InvalidAmount as error:
        message = f"{name}: {error}; or {UNLIMITED_WORD!r}, or null to inherit."
        raise InvalidRequest(message, param=f"caps.{name}") from error


def _written(caps: Caps) -> CapsWritten:
    given = {name: value for name, value in msgspec.structs.asdict(caps).items() if value is not None}
    return CapsWritten(**{name: _write(name, value) for name, value in given.items()})


def _write(name: str, value: Any) -> Any:
    if value == UNLIMITED:
        return UNLIMITED_WORD
    return format_credits(value) if name in IN_CREDITS else value


def _set(who: Capped, caps: Caps) -> CapsSet:
    return CapsSet(who.level, who.id, who.name, _written(caps))


def _standing(standing: Standing) -> StandingShown:
    who, used, windows = standing.who, standing.used, standing.windows
    day, month = (None if each is None else format_credits(each) for each in (used.day, used.month))
    resets = ResetsShown(*(ends_at(each, who.time_zone) for each in windows))
    shown = UsedShown(day, month, used.open_calls)
    return StandingShown(who.level, who.id, who.name, _written(standing.caps), shown, resets)
