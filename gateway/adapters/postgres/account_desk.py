"""Accounts as operators watch and change them: who spends most, who is served, and by which terms."""

from datetime import timedelta

import asyncpg
import msgspec

from gateway.adapters.postgres.accounts import AccountError
from gateway.adapters.postgres.audit_log import AuditLog, ChangeRefused, Signature
from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.core.guard.plans import Plans
from gateway.core.guard.windows import UnknownTimeZone, zone_of
from gateway.core.money import MicroCredits


class Spender(msgspec.Struct, frozen=True):
    """An account's use within a window."""

    account_id: str
    account: str
    status: str
    spend: MicroCredits
    uncharged: MicroCredits  # what its shadow calls would have cost
    calls: int
    flagged: int  # lines that want a second look


class Listed(msgspec.Struct, frozen=True):
    """An account in a list of them; its balance is the ledger's, so running calls are not held against it."""

    account_id: str
    name: str
    status: str
    plan: str
    balance: MicroCredits


class AccountTerms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What bounds an account, and how it is treated. As a change: None stays as it is."""

    plan: str | None = None
    priority: str | None = None
    time_zone: str | None = None
    on_disconnect: str | None = None


class AccountDesk:
    def __init__(self, pool: Pool, audit_log: AuditLog, plans: Plans) -> None:
        self._pool = pool
        self._audit_log = audit_log
        self._plans = plans
        self._sql = load_queries("account_desk")

    async def top(self, window: timedelta, count: int) -> list[Spender]:
        """Those that spent most, the most first."""
        with outages():
            rows = await self._pool.fetch(self._sql["top"], window, count)
        return [
            Spender(
                str(row["id"]),
                row["name"],
                row["status"],
                row["spend"],
                row["uncharged"] or 0,
                row["calls"],
                row["flagged"],
            )
            for row in rows
        ]

    async def page(self, status: str | None, after: str, count: int) -> list[Listed]:
        """Accounts by name, those after a name; of one status, or all."""
        with outages():
            rows = await self._pool.fetch(self._sql["page"], status, after, count)
        return [Listed(str(row["id"]), row["name"], row["status"], row["plan"], row["balance"]) for row in rows]

    async def set_status(self, account_id: str, status: str, signature: Signature) -> str:
        """Suspend an account or serve it again; returns what it was. Gateways follow within a second.

        An account that a review keeps out of service is served again by releasing that, not here: `ChangeRefused`.
        """
        signature = signature.checked()
        if status not in ("active", "suspended", "in_review"):
            raise ChangeRefused(f"{status!r} is not a status: active, suspended or in_review.")
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                row = await connection.fetchrow(self._sql["lock"], account_id)
                if row is None:
                    raise AccountError(f"There is no account {account_id!r}.")
                if status == "active":
                    reviews = await connection.fetch(self._sql["open_reviews"], account_id)
                    if reviews:
                        reference = reviews[0]["reference"]
                        raise ChangeRefused(
                            f"The account is in review; release it: tollgate reviews release {reference}"
                        )
                before: str = row["status"]
                await connection.execute(self._sql["set_status"], account_id, status)
                states = ({"status": before}, {"status": status})
                await self._audit_log.append(
                    connection, signature, "account.status", account_id, before=states[0], after=states[1]
                )
        return before

    async def set_terms(self, account_id: str, change: AccountTerms, signature: Signature) -> None:
        """Change what is not None; gateways follow within a second.

        An account's days and months are those of a new time zone from then on. Raises `ChangeRefused`, of a plan that
        is not configured too: a slip of the pen would else lift or lower every cap of the account.
        """
        signature = signature.checked()
        self._check(change)
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await self._require_known(connection, change.time_zone)
                row = await connection.fetchrow(self._sql["lock"], account_id)
                if row is None:
                    raise AccountError(f"There is no account {account_id!r}.")
                values = {name: value for name, value in msgspec.structs.asdict(change).items() if value is not None}
                before = {name: row[name] for name in values}
                if before == values:
                    return
                columns = (change.plan, change.priority, change.time_zone, change.on_disconnect)
                await connection.execute(self._sql["set_terms"], account_id, *columns)
                await self._audit_log.append(
                    connection, signature, "account.set", account_id, before=before, after=values
                )

    def _check(self, change: AccountTerms) -> None:
        if change.plan is not None and change.plan not in self._plans.names:
            raise ChangeRefused(f"{change.plan!r} is no plan; choose one of: {', '.join(self._plans.names)}.")
        if change.priority not in (None, "normal", "low"):
            raise ChangeRefused(f"{change.priority!r} is not a priority: normal or low.")
        if change.on_disconnect not in (None, "drain", "cancel"):
            raise ChangeRefused(f"{change.on_disconnect!r} is not a policy: drain or cancel.")
        if change.time_zone is not None:
            try:
                zone_of(change.time_zone)
            except UnknownTimeZone as error:
                raise ChangeRefused(f"{error} They are named like Europe/Berlin.") from error

    async def _require_known(self, connection: Connection, time_zone: str | None) -> None:
        """Raise `ChangeRefused` for a time zone of this machine alone, such as "localtime"."""
        if time_zone is not None:
            try:
                await connection.fetchval(self._sql["knows_zone"], time_zone)
            except asyncpg.InvalidParameterValueError as error:
                raise ChangeRefused(
                    f"PostgreSQL knows no time zone {time_zone!r}. They are named like Europe/Berlin."
                ) from error

    async def strays(self) -> dict[str, int]:
        """Plans that are configured no longer, and how many accounts are on each: the default's caps hold for them."""
        with outages():
            rows = await self._pool.fetch(self._sql["strays"], list(self._plans.names))
        return {row["plan"]: row["accounts"] for row in rows}
