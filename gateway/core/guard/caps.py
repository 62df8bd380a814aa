"""Caps: what a caller may use at most, set for a plan, an account, a member or a key.

An account's caps are its plan's, save what the account says itself; those of the member and the key apply in addition,
each on its own count. Pure: what must be exact under concurrency is taken in the reserve script, out of what
`bounds_of` makes here.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple

import msgspec

from gateway.core.access.callers import Caller
from gateway.core.errors import ModelNotAllowed
from gateway.core.guard.windows import Windows, windows_at
from gateway.core.holds import Counted
from gateway.core.money import AMOUNT_UCR_MAX, MicroCredits
from gateway.core.shards import SHARD_KEYS, shard_of

# Lifts a cap that would be inherited; no amount, count or rate is as large.
UNLIMITED = AMOUNT_UCR_MAX

Names = tuple[str, ...]


class Level(StrEnum):
    """Whose calls are counted together: those of one account, one member, one key."""

    ACCOUNT = "account"
    MEMBER = "member"
    KEY = "key"


class Holder(NamedTuple):
    """One account, member or key with caps: whose calls are counted together."""

    account_id: str
    level: str
    id: str


class Excess(StrEnum):
    """What becomes of a call that asks for more than it may have."""

    CLAMP = "clamp"
    REFUSE = "refuse"


class Shortfall(StrEnum):
    """What becomes of a call that there is too little credit for."""

    CLAMP = "clamp"  # its output limit is lowered to what there is
    REFUSE = "refuse"
    SLICE = "slice"  # a long stream is held piece by piece (`slices`); any other call is clamped


class Caps(msgspec.Struct, frozen=True, omit_defaults=True):
    """The caps of one level. None says nothing: what is inherited holds, or there is no such cap."""

    request: MicroCredits | None = None  # that one call may be held for
    day: MicroCredits | None = None
    month: MicroCredits | None = None
    output_tokens: int | None = None  # of one call, all its choices together
    requests_a_minute: int | None = None
    tokens_a_minute: int | None = None  # of input and output, as estimated
    concurrent: int | None = None  # calls
    models_allowed: Names | None = None  # with * and ? as in file names
    models_denied: Names | None = None
    # Policies, of an account and its plan only.
    on_output: Excess | None = None  # above output_tokens
    on_unaffordable: Shortfall | None = None  # more than there is credit for

    def over(self, inherited: "Caps") -> "Caps":
        """These caps, and what they leave open from `inherited`."""
        own = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(inherited, **own)

    @property
    def is_counted(self) -> bool:
        """Whether an open call counts, so that its end must be told."""
        return self.day is not None or self.month is not None or self.concurrent is not None

    @property
    def is_checked(self) -> bool:
        """Whether a reserve must look at a counter."""
        return self.is_counted or self.requests_a_minute is not None or self.tokens_a_minute is not None


class CapsByLevel(NamedTuple):
    """The caps that apply to one caller: of its account (with those of the plan), its member and its key."""

    account: Caps = Caps()
    member: Caps = Caps()
    key: Caps = Caps()


class Bounds(msgspec.Struct, frozen=True, gc=False):
    """What the calls of one caller are bound by while `windows` last. Made once for many calls."""

    caps: CapsByLevel
    windows: Windows
    time_zone: str
    request: tuple[MicroCredits, Level] | None
    output_tokens: int | None
    on_output: Excess
    on_unaffordable: Shortfall
    models: tuple[tuple[Names | None, Names], ...]  # allowed and denied, of each level that says either
    checked: tuple[Level, ...]  # by the reserve script
    keys: tuple[bytes, ...]  # of Redis, one for each level that is checked
    lines: tuple[bytes, ...]  # for the reserve script, one for each key
    counted: tuple[Counted, ...]  # what the end of a call must set right
    rates: tuple[
        tuple[str, tuple[tuple[int, int], ...]], ...
    ]  # requests, tokens: where the script says the room, limit

    def hold_at(self, time_ms: int) -> bool:
        """Whether these bound a call that is opened at `time_ms`."""
        day = self.windows.day
        return day.start_ms <= time_ms < day.end_ms

    def allow_model(self, *names: str) -> None:
        """Raise `ModelNotAllowed` unless every level allows the model, which goes by any of `names`."""
        if not _are_allowed(names, self.models):
            raise ModelNotAllowed(
                f"The model {names[0][:128]!r} is not allowed by the caps of this account, member or key.",
                param="model",
            )


def bounds_of(caller: Caller, caps: CapsByLevel, time_ms: int) -> Bounds:
    """What bounds a call of `caller` that is opened at `time_ms`."""
    windows = windows_at(time_ms, caller.time_zone)
    caps = CapsByLevel(*map(_without_unlimited, caps))
    levels = list(zip(Level, caps, strict=True))
    checked = [(level, each) for level, each in levels if each.is_checked]
    return Bounds(
        caps=caps,
        windows=windows,
        time_zone=caller.time_zone,
        request=_least((each.request, level) for level, each in levels),
        output_tokens=min((each.output_tokens for each in caps if each.output_tokens is not None), default=None),
        on_output=caps.account.on_output or Excess.CLAMP,
        on_unaffordable=caps.account.on_unaffordable or Shortfall.REFUSE,
        models=tuple(
            (each.models_allowed, each.models_denied or ())
            for each in caps
            if each.models_allowed is not None or each.models_denied
        ),
        checked=tuple(level for level, _ in checked),
        keys=tuple(key_of(caller.account_id, level, id_of(caller, level)) for level, _ in checked),
        lines=tuple(_line(level, each, windows) for level, each in checked),
        counted=tuple(_counted(level, each, windows) for level, each in checked if each.is_counted),
        rates=tuple(_rates([each for _, each in checked])),
    )


def id_of(caller: Caller, level: Level) -> str:
    """Who the account, the member or the key of this caller is."""
    if level is Level.ACCOUNT:
        return caller.account_id
    return caller.key_id if level is Level.KEY else caller.member_id or ""


def key_of(account_id: str, level: str, holder_id: str) -> bytes:
    """The Redis key of a level's counters, in its account's shard like all that a reserve touches."""
    return SHARD_KEYS[shard_of(account_id)].caps(level, holder_id)


def _counted(level: Level, caps: Caps, windows: Windows) -> Counted:
    day = windows.day.name if caps.day is not None else ""
    month = windows.month.name if caps.month is not None else ""
    return Counted(level.value, day, month)


def _line(level: Level, caps: Caps, windows: Windows) -> bytes:
    """What the reserve script is told of a level: eight words, "-" where there is no cap."""
    counted = _counted(level, caps, windows)
    limits = (caps.concurrent, caps.requests_a_minute, caps.tokens_a_minute)
    words = (level.value, counted.day, caps.day, counted.month, caps.month, *limits)
    return " ".join("-" if word in (None, "") else str(word) for word in words).encode()


def _rates(checked: list[Caps]) -> Iterator[tuple[str, tuple[tuple[int, int], ...]]]:
    """Of each rate that some level limits: where in the script's answer its room stands, and the limit."""
    for offset, name in enumerate(("requests", "tokens")):
        limits = [getattr(each, f"{name}_a_minute") for each in checked]
        places = tuple((2 * index + offset, limit) for index, limit in enumerate(limits) if limit)
        if places:
            yield name, places


def _without_unlimited(caps: Caps) -> Caps:
    lifted = {name: None for name, value in msgspec.structs.asdict(caps).items() if value == UNLIMITED}
    return msgspec.structs.replace(caps, **lifted) if lifted else caps


def _least(limits: Iterable[tuple[int | None, Level]]) -> tuple[int, Level] | None:
    return min(((limit, level) for limit, level in limits if limit is not None), default=None)


@lru_cache(maxsize=4096)
def _are_allowed(names: Names, models: tuple[tuple[Names | None, Names], ...]) -> bool:
    return all((allowed is None or _match(names, allowed)) and not _match(names, denied) for allowed, denied in models)


def _match(names: Names, patterns: Names) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
