"""`/ops/brownouts` and `/ops/breakers`: which models are reduced or let alone, and by whom."""

from collections.abc import Callable

import msgspec
from aiohttp import web

from gateway.adapters.postgres.audit_log import ChangeRefused, Signature
from gateway.adapters.postgres.brownouts import BrownoutDesk
from gateway.adapters.redis.breakers import BreakerStore
from gateway.adapters.redis.link import RedisUnavailable
from gateway.core.access.operators import Role
from gateway.core.errors import BillingUnavailable
from gateway.core.guard.breaker import NOTHING
from gateway.core.guard.brownout import Brownout, Level
from gateway.core.guard.shared_breaker import Standing
from gateway.web.operations import Answer, Operation, read_body
from gateway.web.ops.access import OperatorAccess


class BrownoutShown(msgspec.Struct, frozen=True):
    """`models` is a model or a pattern; level 1 sheds, 2 trims, 3 reroutes, 4 refuses."""

    models: str
    level: int
    shed_percent: int
    output_tokens: int
    reroute_to: str
    reason: str
    banner: str
    author: str
    set_at_ms: int
    expires_at_ms: int


class BrownoutsShown(msgspec.Struct, frozen=True):
    data: list[BrownoutShown]


class BrownoutAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is not given is as [brownout] of the configuration says."""

    models: str
    level: int
    for_s: int
    reason: str
    shed_percent: int | None = None
    output_tokens: int | None = None
    reroute_to: str | None = None
    banner: str = ""


class BrownoutClearAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: str
    reason: str


class Window(msgspec.Struct, frozen=True):
    """The calls of the window, by what they said."""

    ok: int
    error: int
    timeout: int
    throttled: int
    unreachable: int


class BreakerShown(msgspec.Struct, frozen=True):
    breaker: str
    state: str
    cause: str
    age_ms: int
    left_ms: int
    openings: int
    window: Window


class BreakersShown(msgspec.Struct, frozen=True):
    """Those that have opened within the last day; all others are closed."""

    data: list[BreakerShown]


class BrownoutDefaults(msgspec.Struct, frozen=True):
    shed_percent: int
    output_tokens: int
    reroute_of: Callable[[str], str]  # a model or pattern → the cheaper model, or ""
    is_sold: Callable[[str], bool]  # whether a model, or any of a pattern, has a price


class ModelsApi:
    def __init__(
        self, access: OperatorAccess, desk: BrownoutDesk, breakers: BreakerStore, defaults: BrownoutDefaults
    ) -> None:
        self._access = access
        self._desk = desk
        self._breakers = breakers
        self._defaults = defaults

    def operations(self) -> list[Operation]:
        return [
            Operation("GET", "/ops/brownouts", self.brownouts, "Every brownout that was set.", BrownoutsShown),
            Operation("POST", "/ops/brownouts", self.set, "Reduce a model.", BrownoutShown, takes=BrownoutAsked),
            Operation(
                "POST", "/ops/brownouts/clear", self.clear, "End a brownout.", BrownoutShown, takes=BrownoutClearAsked
            ),
            Operation("GET", "/ops/breakers", self.breakers, "Breakers that opened lately.", BreakersShown),
        ]

    async def brownouts(self, request: web.Request) -> Answer:
        await self._access.operator(request, Role.VIEWER)
        return Answer(BrownoutsShown([_shown(each) for each in await self._desk.list()]))

    async def set(self, request: web.Request) -> Answer:
        operator = await self._access.operator(request, Role.OPERATOR)
        asked, defaults = read_body(await request.read(), BrownoutAsked), self._defaults
        if asked.level not in list(Level):
            raise ChangeRefused("A level is 1 to 4.")
        other = defaults.reroute_of(asked.models) if asked.reroute_to is None else asked.reroute_to
        for name in filter(None, (asked.models, other)):
            if not defaults.is_sold(name):
                raise ChangeRefused(f"The rate card has no model {name[:128]!r}.")
        brownout = await self._desk.set(
            asked.models,
            Level(asked.level),
            Signature(operator.name, asked.reason),
            for_ms=asked.for_s * 1000,
            shed_percent=defaults.shed_percent if asked.shed_percent is None else asked.shed_percent,
            output_tokens=defaults.output_tokens if asked.output_tokens is None else asked.output_tokens,
            reroute_to=other,
            banner=asked.banner,
        )
        assert brownout is not None
        return Answer(_shown(brownout))

    async def clear(self, request: web.Request) -> Answer:
        operator = await self._access.operator(request, Role.OPERATOR)
        asked = read_body(await request.read(), BrownoutClearAsked)
        return Answer(_shown(await self._desk.clear(asked.models, Signature(operator.name, asked.reason))))

    async def breakers(self, request: web.Request) -> Answer:
        await self._access.operator(request, Role.VIEWER)
        return Answer(BreakersShown(await self._opened()))

    async def _opened(self) -> list[BreakerShown]:
        try:
            looked = {name: await self._breakers.look(name) for name in sorted(await self._breakers.opened())}
        except RedisUnavailable as error:
            raise BillingUnavailable("Redis does not answer.", retry_after_s=1) from error
        return [_breaker(name, standing) for name, standing in looked.items() if standing is not None]


def _shown(brownout: Brownout) -> BrownoutShown:
    return BrownoutShown(
        models=brownout.models,
        level=int(brownout.level),
        shed_percent=brownout.shed_percent,
        output_tokens=brownout.output_tokens,
        reroute_to=brownout.reroute_to,
        reason=brownout.reason,
        banner=brownout.banner,
        author=brownout.author,
        set_at_ms=brownout.set_at_ms,
        expires_at_ms=brownout.expires_at_ms,
    )


def _breaker(name: str, standing: Standing) -> BreakerShown:
    breaker, total = standing.breaker, NOTHING
    for _, counts in standing.buckets:
        total = total.plus(counts)
    window = Window(*total[:5])
    return BreakerShown(name, breaker.state, breaker.cause, standing.age_ms, standing.left_ms, breaker.openings, window)
