"""Caps as operators set them and see what is used: each change one SQL transaction with its line in the audit log."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway.adapters.postgres.audit_log import AuditLog, ChangeRefused, Signature
from gateway.adapters.postgres.caps import read_caps
from gateway.adapters.postgres.charges import Charges
from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.adapters.redis.counters import Counters, Used
from gateway.core.guard.caps import Caps, Holder
from gateway.core.guard.plans import Plans
from gateway.core.guard.windows import Windows, windows_at

PLAN_PREFIX = "plan:"
PATTERNS_MAX = 100
PATTERN_LENGTH_MAX = 100


class NoSuchHolder(ChangeRefused):
    """Nobody and no plan goes by that name."""


class Capped(msgspec.Struct, frozen=True):
    """Who can have caps: a plan, an account, a member or a key."""

    level: str
    id: str
    name: str
    account_id: str | None = None  # whose it is
    plan: str = ""
    time_zone: str = "UTC"


class Standing(msgspec.Struct, frozen=True):
    """The caps that hold for somebody, and what is used of them now."""

    who: Capped
    caps: Caps
    windows: Windows
    used: Used


class CapDesk:
    def __init__(
        self,
        pool: Pool,
        plans: Plans,
        counters: Counters,
        charges: Charges,
        audit_log: AuditLog,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._plans = plans
        self._counters = counters
        self._charges = charges
        self._audit_log = audit_log
        self._now_ms = now_ms
        self._sql = load_queries("caps") | load_queries("cap_desk")

    async def find(self, who: str) -> Capped:
        """An account, member or key by name or id, or a plan as "plan:NAME"; raises `ChangeRefused`, `NoSuchHolder`."""
        if who.startswith(PLAN_PREFIX):
            name = who.removeprefix(PLAN_PREFIX)
            if name not in self._plans.names:
                raise NoSuchHolder(f"{name!r} is no plan; choose one of: {', '.join(self._plans.names)}.")
            return Capped("plan", name, name)
        rows = []
        if "\0" not in who:
            with outages():
                rows = await self._pool.fetch(self._sql["find"], who)
        if not rows:
            raise NoSuchHolder(f"There is no account, member or key {who!r}; `tollgate accounts list` shows accounts.")
        if len(rows) > 1:
            found = ", ".join(f"{row['level']} {row['id']}" for row in rows)
            raise ChangeRefused(f"{who!r} may be {found}; give the id.")
        return msgspec.convert(dict(rows[0]), Capped)

    async def set(self, who: Capped, change: Mapping[str, Any], signature: Signature) -> Caps:
        """Change caps by name; None inherits again. Returns all that are set. Raises `ChangeRefused`."""
        signature = signature.checked()
        _check(who, change)
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["lock"], who.level, who.id)
                row = await connection.fetchrow(self._sql["of_holder"], who.level, who.id)
                before = Caps() if row is None else read_caps(row)
                after = msgspec.convert(msgspec.structs.asdict(before) | dict(change), Caps)
                values = msgspec.to_builtins(msgspec.structs.asdict(after)).values()
                await connection.execute(self._sql["set"], who.level, who.id, who.account_id, *values)
                await self._audit_log.append(
                    connection, signature, "caps.set", f"{who.level}:{who.id}", before=before, after=after
                )
        return after

    async def standing_unused(self, who: Capped) -> Standing:
        """What holds for `who`, without what is used of it: for when nobody can say."""
        return Standing(who, await self._holding(who), self._windows(who), Used(None, None, None))

    async def standing(self, who: Capped) -> list[Standing]:
        """What holds for `who` and, of an account, for each of its members and keys that has caps of its own."""
        standings = [await self._standing(who)]
        if who.level == "account":
            with outages():
                rows = await self._pool.fetch(self._sql["capped"], who.id)
            for row in rows:
                one = Capped(row["level"], row["id"], row["name"], who.id, who.plan, who.time_zone)
                standings.append(await self._standing(one))
        return standings

    async def _standing(self, who: Capped) -> Standing:
        caps, windows, used = await self._holding(who), self._windows(who), Used(None, None, None)
        if who.account_id is not None:
            used = await self._used(Holder(who.account_id, who.level, who.id), windows, caps)
        return Standing(who, caps, windows, used)

    async def _holding(self, who: Capped) -> Caps:
        """Their own caps, with those that they inherit."""
        caps = await self._own(who.level, who.id)
        if who.level == "account":
            return caps.over((await self._own("plan", who.plan)).over(self._plans.caps(who.plan)))
        return caps.over(self._plans.caps(who.id)) if who.level == "plan" else caps

    def _windows(self, who: Capped) -> Windows:
        return windows_at(self._now_ms(), who.time_zone)

    async def _used(self, holder: Holder, windows: Windows, caps: Caps) -> Used:
        """What Redis counts; and of a window in which no call was counted yet, what Postgres has charged."""
        used = await self._counters.used(holder, windows)
        has_day, has_month = caps.day is not None and used.day is None, caps.month is not None and used.month is None
        if not has_day and not has_month:
            return used
        charged = await self._charges.of(holder, windows, has_day=has_day, has_month=has_month)
        return Used(
            charged.day if used.day is None else used.day,
            charged.month if used.month is None else used.month,
            used.open_calls,
        )

    async def _own(self, level: str, holder: str) -> Caps:
        with outages():
            row = await self._pool.fetchrow(self._sql["of_holder"], level, holder)
        return Caps() if row is None else read_caps(row)


def _check(who: Capped, change: Mapping[str, Any]) -> None:
    if not change:
        raise ChangeRefused("Say which cap to set.")
    if who.level in ("member", "key") and {"on_output", "on_unaffordable"} & set(change):
        raise ChangeRefused("What happens beyond a cap is an account's or a plan's to say.")
    for patterns in (change.get("models_allowed"), change.get("models_denied")):
        if patterns is not None and len(patterns) > PATTERNS_MAX:
            raise ChangeRefused(f"At most {PATTERNS_MAX} models can be named.")
        for pattern in patterns or ():
            if not 0 < len(pattern) <= PATTERN_LENGTH_MAX or not pattern.isprintable():
                raise ChangeRefused(f"{pattern[:PATTERN_LENGTH_MAX]!r} is no name of a model.")
