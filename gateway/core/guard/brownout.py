"""Brownouts: an operator's, or a rule's, deliberate reduction of one model or family, by levels and for a time. Pure.

A level does what those below it do. What a rerouted call is spared is the reduction of the model that it does not use.
Nothing that a caller did not ask for makes its call dearer.
"""

from collections.abc import Callable, Iterable
from enum import IntEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

import msgspec

from gateway.core.access.callers import Caller, Priority
from gateway.core.calls.calls import Call, Endpoint
from gateway.core.calls.clamps import with_model, with_output_limit, with_service_tier
from gateway.core.errors import ModelBrownedOut, ModelNotAllowed
from gateway.core.guard.caps import Bounds
from gateway.core.guard.flags import Banner, until_of
from gateway.core.pricing.rates import DEFAULT_TIER

MODEL_LENGTH_MAX = 256  # of one that is not known to be sold: what is remembered of it must stay small
FLEX_TIER = "flex"  # cheaper, and gives way by itself

# A client that is told to come back much later gives up; the end of a brownout is a guess besides.
RETRY_AFTER_S_MAX = 300


class Level(IntEnum):
    NORMAL = 0
    SHED = 1  # a share of the accounts and keys of low priority are refused
    TRIM = 2  # output is capped, and served in the default tier, if not in a cheaper one; hosted tools are never sold
    REROUTE = 3  # callers who allow it get a cheaper model, where it is cheaper than what they asked for
    REFUSE = 4


class Brownout(msgspec.Struct, frozen=True):
    """One brownout as it was decided; `models` is a model or a pattern of a family."""

    models: str
    level: Level
    shed_percent: int  # of the low-priority accounts, and of the low-priority keys of others
    output_tokens: int  # of each choice
    reroute_to: str  # a model; "": nobody is rerouted
    reason: str
    author: str
    set_at_ms: int
    expires_at_ms: int
    banner: str = ""  # what callers are told instead of the reason

    @property
    def told(self) -> Banner:
        """What callers and pages are told."""
        what = _WHAT.get(self.level, "{}").format(self.models, self.reroute_to)
        return Banner(f"brownout:{self.models}", what, self.banner or self.reason, until_of(self.expires_at_ms))

    def retry_after_s(self, now_ms: int) -> int:
        return min(max(-((now_ms - self.expires_at_ms) // 1000), 1), RETRY_AFTER_S_MAX)

    def spares(self, model: str) -> bool:
        """Whether the model is the way out of this brownout: a family may hold the very model that is rerouted to."""
        return self.level == Level.REROUTE and model == self.reroute_to

    def sheds(self, caller: Caller) -> bool:
        """Whether the caller is of the share that is shed: always the same in one brownout, another in the next.

        An account of low priority is shed with all its keys, or with none.
        """
        if caller.priority == Priority.LOW:
            drawn_by = caller.account_id
        elif caller.key_priority == Priority.LOW:
            drawn_by = caller.key_id
        else:
            return False
        drawn = sha256(f"{self.models} {self.set_at_ms} {drawn_by}".encode()).digest()
        return int.from_bytes(drawn[:8]) % 100 < self.shed_percent


_WHAT = {
    Level.SHED: "{} is short of capacity",
    Level.TRIM: "{} gives shorter answers, in the default service tier",
    Level.REROUTE: "{} gives shorter answers, or those of {} to whoever allows it",
    Level.REFUSE: "{} is not served",
}


class Trimmed(NamedTuple):
    """A call that may be made during brownouts, and the header lines that tell what was changed."""

    call: Call
    lines: bytes = b""


class Brownouts(msgspec.Struct, frozen=True):
    """The brownouts in force."""

    brownouts: tuple[Brownout, ...]

    def of(self, model: str, sold_as: str) -> Brownout | None:
        """The one that holds for `model`: the severest, and of those the one that names it most closely.

        A snapshot or alias is `sold_as` its family, and shares its fate.
        """
        holding = [each for each in self.brownouts if _covers(each.models, model, sold_as) and not each.spares(model)]
        return max(holding, key=lambda each: (each.level, len(each.models)), default=None)

    def banners(self) -> list[Banner]:
        return [each.told for each in self.brownouts]

    def trim(
        self,
        call: Call,
        sold_as: str,
        caller: Caller,
        bounds: Bounds,
        *,
        accepts_reroute: Callable[[str], bool] | None,
        auto_tier: str,
        now_ms: int,
    ) -> Trimmed:
        """The call as it may be made now; raises `ModelBrownedOut`. `auto_tier`: of a call that names none.

        `accepts_reroute`: whether that model may take its place; None of a caller who allows none.
        """
        brownout = self.of(call.model, sold_as)
        if brownout is None:
            return Trimmed(call)
        other = brownout.reroute_to
        is_accepted = brownout.level == Level.REROUTE and accepts_reroute is not None and accepts_reroute(other)
        if is_accepted and _may_use(caller, bounds, other):
            return self._rerouted(call, caller, brownout, auto_tier, now_ms)
        return _reduced(call, caller, brownout, auto_tier, now_ms)

    def check_session(self, model: str, caller: Caller, now_ms: int) -> None:
        """Raises `ModelBrownedOut` for a session: nothing of it can be trimmed, but it can be refused."""
        name = model[:MODEL_LENGTH_MAX]
        brownout = self.of(name, name)
        if brownout is not None:
            _check(caller, brownout, now_ms)

    def _rerouted(self, call: Call, caller: Caller, brownout: Brownout, auto_tier: str, now_ms: int) -> Trimmed:
        model = brownout.reroute_to
        lines = b"x-gateway-rerouted: from=%b, to=%b\r\n" % (_word(call.model), _word(model))
        trimmed = Trimmed(with_model(call, model))
        if call.service_tier not in (None, "auto", DEFAULT_TIER):  # the other model may have no such tier
            trimmed = _in_default_tier(trimmed.call)
        lines += trimmed.lines
        there = self.of(model, model)
        if there is not None:
            trimmed = _reduced(trimmed.call, caller, there, auto_tier, now_ms)
            lines += trimmed.lines
        return Trimmed(trimmed.call, lines)


@lru_cache(maxsize=4096)  # every call asks, of each brownout
def _covers(models: str, model: str, sold_as: str) -> bool:
    return fnmatchcase(model, models) or fnmatchcase(sold_as, models)


def _may_use(caller: Caller, bounds: Bounds, model: str) -> bool:
    if not model:
        return False
    try:
        bounds.allow_model(model)
        if caller.restrictions is not None:
            caller.restrictions.check_model(model)
    except ModelNotAllowed:
        return False
    return True


def _check(caller: Caller, brownout: Brownout, now_ms: int) -> None:
    if brownout.level >= Level.REFUSE or (brownout.level >= Level.SHED and brownout.sheds(caller)):
        raise ModelBrownedOut(str(brownout.told), param="model", retry_after_s=brownout.retry_after_s(now_ms))


def _reduced(call: Call, caller: Caller, brownout: Brownout, auto_tier: str, now_ms: int) -> Trimmed:
    _check(caller, brownout, now_ms)
    if brownout.level < Level.TRIM:
        return Trimmed(call)
    lines = b"x-gateway-brownout: level=%d\r\n" % brownout.level
    trimmed = with_output_limit(call, brownout.output_tokens)
    tier = auto_tier if call.service_tier is None else call.service_tier
    if tier in (DEFAULT_TIER, FLEX_TIER) or call.endpoint not in _TIERED:
        return Trimmed(trimmed, lines)
    forced = _in_default_tier(trimmed)
    return Trimmed(forced.call, lines + forced.lines)


def _in_default_tier(call: Call) -> Trimmed:
    lines = b"x-gateway-service-tier: %b\r\n" % DEFAULT_TIER.encode()
    return Trimmed(with_service_tier(call, DEFAULT_TIER), lines)


_TIERED = frozenset({Endpoint.CHAT, Endpoint.RESPONSES})


def _word(model: str) -> bytes:
    """A model's name for a header line: whatever a caller wrote, it stays one line."""
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in model[:128]).encode()


def brownouts_in_force(brownouts: Iterable[Brownout], now_ms: int) -> Brownouts | None:
    """Those that have not expired; None if there are none, so that a request has one thing to look at."""
    live = tuple(each for each in brownouts if each.level > Level.NORMAL and each.expires_at_ms > now_ms)
    return Brownouts(live) if live else None
