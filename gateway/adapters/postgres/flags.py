"""Flags in Postgres, as operators list, set and clear them: each change one SQL transaction with its line in the log.

A flag that nobody could mean is refused here, so that gateways can take what they read as it is.
"""

from collections.abc import Callable
from uuid import UUID

from gateway.adapters.postgres.audit_log import AuditLog, ChangeRefused, Signature
from gateway.adapters.postgres.controls import flag_of
from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.core.guard.flags import BANNER_LENGTH_MAX, Flag, FlagError, Scope, default_of

ACCOUNTS_MAX = 10_000
NAME_LENGTH_MAX = 250
FOR_MS_MAX = 366 * 24 * 3600 * 1000


class FlagDesk:
    def __init__(self, pool: Pool, audit_log: AuditLog, *, now_ms: Callable[[], int]) -> None:
        self._pool = pool
        self._audit_log = audit_log
        self._now_ms = now_ms
        self._sql = load_queries("flags")

    async def list(self) -> list[Flag]:
        """Every flag that was set and not cleared, by name; also those that have expired."""
        with outages():
            return [flag_of(row) for row in await self._pool.fetch(self._sql["list"])]

    async def set(
        self,
        name: str,
        value: bool,
        scope: Scope,
        signature: Signature,
        *,
        for_ms: int | None = None,
        banner: str = "",
    ) -> Flag:
        """Set a flag, for so long if an end is given; gateways follow within a second. Raises `ChangeRefused`."""
        signature = signature.checked()
        _check(name, scope, for_ms, banner)
        expires_at_ms = None if for_ms is None else self._now_ms() + for_ms
        flag = Flag(name, value, scope, signature.reason, signature.author, banner.strip(), expires_at_ms)
        accounts = None if scope.accounts is None else [_uuid(each) for each in sorted(scope.accounts)]
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["lock"], name)
                unknown = await connection.fetch(self._sql["unknown_accounts"], accounts or [])
                if unknown:
                    raise ChangeRefused(f"There is no account {unknown[0]['id']}.")
                before = await connection.fetchrow(self._sql["find"], name)
                await connection.execute(
                    self._sql["set"],
                    name,
                    value,
                    scope.percent,
                    accounts,
                    flag.reason,
                    flag.author,
                    flag.banner,
                    expires_at_ms,
                )
                earlier = None if before is None else flag_of(before)
                await self._audit_log.append(connection, signature, "flag.set", name, before=earlier, after=flag)
        return flag

    async def clear(self, name: str, signature: Signature) -> Flag:
        """Set a flag back to its default; returns what it was. Raises `ChangeRefused` if it was not set."""
        signature = signature.checked()
        unset = ChangeRefused(f"The flag {name[:NAME_LENGTH_MAX]!r} is not set; `tollgate flags list` shows all.")
        if "\0" in name:
            raise unset
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["lock"], name)
                row = await connection.fetchrow(self._sql["find"], name)
                if row is None:
                    raise unset
                before = flag_of(row)
                await connection.execute(self._sql["clear"], name)
                await self._audit_log.append(connection, signature, "flag.clear", name, before=before, after=None)
        return before


def _check(name: str, scope: Scope, for_ms: int | None, banner: str) -> None:
    try:
        default_of(name)
    except FlagError as error:
        raise ChangeRefused(str(error)) from error
    if scope.percent is not None and not 0 <= scope.percent <= 100:
        raise ChangeRefused("A cohort is 0 to 100 percent.")
    if scope.percent is not None and scope.accounts is not None:
        raise ChangeRefused("A flag is for a cohort or for a list of accounts, not for both.")
    if scope.accounts is not None and not 0 < len(scope.accounts) <= ACCOUNTS_MAX:
        raise ChangeRefused(f"A list has 1 to {ACCOUNTS_MAX} accounts.")
    if for_ms is not None and not 0 < for_ms <= FOR_MS_MAX:
        raise ChangeRefused("A flag is set for more than no time, and for at most 366 days.")
    if len(banner) > BANNER_LENGTH_MAX or not banner.isprintable():
        raise ChangeRefused(f"A banner has at most {BANNER_LENGTH_MAX} printable characters.")


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise ChangeRefused(f"{text!r} is no account's id.") from error
