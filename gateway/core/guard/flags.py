"""Flags: what operators switch on and off, for whom and until when. Pure; which flags there are is one table.

Within its scope a flag has its value, outside of it the other one; no flag, or one that has expired: the default. An
account has one place in every cohort, so whoever is charged within 5 % may also buy within 5 %, and stays within 25 %.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256

import msgspec

from gateway.core.errors import EndpointOff, GatewayError, Maintenance, PurchasesClosed

MAINTENANCE = "maintenance"
CHARGING = "charging_enabled"
PURCHASE = "purchase_enabled"
ENDPOINT = "endpoint:"  # and a path: that one, and what is below it

# What each is while nobody has set it.
DEFAULTS = {MAINTENANCE: False, CHARGING: True, PURCHASE: True, ENDPOINT: True}

_PATH = re.compile(r"/v1(?:/[A-Za-z0-9._:-]+)*")
PATH_LENGTH_MAX = 200

# A client that is told to come back much later gives up, or asks anyway; without an end nobody knows better.
RETRY_AFTER_S_MAX = 3600
RETRY_AFTER_S_UNKNOWN = 60


class FlagError(ValueError):
    """There is no such flag, or it cannot be set so."""


class Scope(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whom a flag's value is for: a cohort of so many percent, a list of accounts, or everybody."""

    percent: int | None = None
    accounts: frozenset[str] | None = None

    def holds(self, account_id: str) -> bool:
        if self.accounts is not None:
            return account_id in self.accounts
        return self.percent is None or cohort_of(account_id) < self.percent

    @property
    def is_everybody(self) -> bool:
        return self.accounts is None and self.percent in (None, 100)

    @property
    def is_nobody(self) -> bool:
        return self.percent == 0 or self.accounts == frozenset()

    def __str__(self) -> str:
        if self.accounts is not None:
            return f"{len(self.accounts)} account{'' if len(self.accounts) == 1 else 's'}"
        return "all" if self.percent is None else f"{self.percent} %"


class Flag(msgspec.Struct, frozen=True):
    """A flag as an operator has set it."""

    name: str
    value: bool
    scope: Scope
    reason: str
    author: str
    banner: str = ""  # what callers are told instead of the reason
    expires_at_ms: int | None = None

    def departs_for(self, account_id: str) -> bool:
        """Whether the account finds it otherwise than by default."""
        return (self.value if self.scope.holds(account_id) else not self.value) != default_of(self.name)

    @property
    def departs_for_everybody(self) -> bool:
        departs = self.value != default_of(self.name)
        return self.scope.is_everybody if departs else self.scope.is_nobody


BANNER_LENGTH_MAX = 500


class Banner(msgspec.Struct, frozen=True):
    """What callers and pages are told of a flag."""

    flag: str
    what: str
    why: str
    until: str | None  # ISO 8601, UTC

    def __str__(self) -> str:
        until = "" if self.until is None else f" Until {self.until}."
        return f"{self.what}: {self.why.rstrip('.')}.{until}"


class Flags(msgspec.Struct, frozen=True):
    """The flags in force."""

    maintenance: Flag | None = None
    charging: Flag | None = None
    purchase: Flag | None = None
    endpoints: tuple[Flag, ...] = ()

    def check_request(self, account_id: str, path: str, now_ms: int) -> None:
        """Raises the `GatewayError` that refuses a request of the OpenAI API."""
        if self.maintenance is not None and self.maintenance.departs_for(account_id):
            raise _refusal(Maintenance, self.maintenance, now_ms)
        for flag in self.endpoints:
            if covers(flag.name.removeprefix(ENDPOINT), path) and flag.departs_for(account_id):
                raise _refusal(EndpointOff, flag, now_ms)

    def check_purchase(self, account_id: str, now_ms: int) -> None:
        """Raises the `GatewayError` that refuses a purchase."""
        for flag, refusal in ((self.maintenance, Maintenance), (self.purchase, PurchasesClosed)):
            if flag is not None and flag.departs_for(account_id):
                raise _refusal(refusal, flag, now_ms)

    def sells_to(self, account_id: str) -> bool:
        """Whether the account may buy."""
        return not any(flag is not None and flag.departs_for(account_id) for flag in (self.maintenance, self.purchase))

    def is_shadow(self, account_id: str) -> bool:
        """Whether the account's calls are only measured: its balance must not move."""
        return self.charging is not None and self.charging.departs_for(account_id)

    def set_flags(self) -> list[Flag]:
        """Every flag that is set, whomever it concerns."""
        return [each for each in (self.maintenance, self.purchase, self.charging, *self.endpoints) if each is not None]

    def banners(self, account_id: str | None = None) -> list[Banner]:
        """What an account is to know; or, without one, what everybody is."""
        return [
            banner_of(flag)
            for flag in self.set_flags()
            if (flag.departs_for_everybody if account_id is None else flag.departs_for(account_id))
        ]


@lru_cache(maxsize=16_384)  # every call of an account asks
def cohort_of(account_id: str) -> int:
    """The account's place among 0 to 99: in a cohort of so many percent are those below it."""
    return int.from_bytes(sha256(account_id.encode()).digest()[:8]) % 100


def covers(prefix: str, path: str) -> bool:
    """Whether `path` is `prefix` or below it.

    >>> covers("/v1/models", "/v1/models/gpt-5"), covers("/v1/chat", "/v1/chats")
    (True, False)
    """
    return path == prefix or path.startswith(prefix + "/")


@lru_cache(maxsize=1024)  # every call asks, of each flag that is set
def default_of(name: str) -> bool:
    """What a flag is while nobody has set it; raises `FlagError` for one that does not exist."""
    kind = ENDPOINT if name.startswith(ENDPOINT) else name
    default = DEFAULTS.get(kind)
    if default is None or (kind == ENDPOINT and not _is_path(name.removeprefix(ENDPOINT))):
        known = ", ".join(sorted(DEFAULTS.keys() - {ENDPOINT}))
        raise FlagError(f"There is no flag {name[:PATH_LENGTH_MAX]!r}: flags are {known}, and endpoint:/v1/….")
    return default


def _is_path(path: str) -> bool:
    return len(path) <= PATH_LENGTH_MAX and _PATH.fullmatch(path) is not None


def in_force(flags: Iterable[Flag], now_ms: int) -> Flags | None:
    """Those that have not expired; None if there are none, so that a request has one thing to look at."""
    live = {each.name: each for each in flags if each.expires_at_ms is None or each.expires_at_ms > now_ms}
    if not live:
        return None
    endpoints = tuple(live[name] for name in sorted(live) if name.startswith(ENDPOINT))
    return Flags(live.get(MAINTENANCE), live.get(CHARGING), live.get(PURCHASE), endpoints)


def until_of(expires_at_ms: int | None) -> str | None:
    """What a banner says of its end."""
    if expires_at_ms is None:
        return None
    return datetime.fromtimestamp(expires_at_ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def banner_of(flag: Flag) -> Banner:
    what = {
        MAINTENANCE: "Down for maintenance",
        CHARGING: "Calls are measured and not charged",
        PURCHASE: "Credits cannot be bought now",
    }.get(flag.name) or f"{flag.name.removeprefix(ENDPOINT)} is switched off"
    return Banner(flag.name, what, flag.banner or flag.reason, until_of(flag.expires_at_ms))


def _refusal(kind: type[GatewayError], flag: Flag, now_ms: int) -> GatewayError:
    banner = banner_of(flag)
    retry_after_s = RETRY_AFTER_S_UNKNOWN
    if flag.expires_at_ms is not None:
        retry_after_s = min(max(-((now_ms - flag.expires_at_ms) // 1000), 1), RETRY_AFTER_S_MAX)
    details = {"what": banner.what, "why": banner.why}
    if banner.until is not None:
        details["until"] = banner.until
    return kind(str(banner), retry_after_s=retry_after_s, **details)
