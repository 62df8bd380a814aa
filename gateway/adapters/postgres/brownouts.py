"""Brownouts in Postgres, as operators and rules set and clear them: each change one SQL transaction with its log line
and the notice to operators.

One that nobody could mean is refused here, so that gateways can take what they read as it is.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from gateway.adapters.postgres.audit_log import AuditLog, ChangeRefused, Signature
from gateway.adapters.postgres.controls import brownout_of
from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.adapters.postgres.notices import Notices
from gateway.core.calls.calls import OUTPUT_LIMIT_TOKENS_MAX
from gateway.core.guard.brownout import Brownout, Level
from gateway.core.guard.flags import BANNER_LENGTH_MAX
from gateway.core.guard.notices import Fields, Kind

NAME_LENGTH_MAX = 128
FOR_MS_MAX = 31 * 24 * 3600 * 1000


class BrownoutDesk:
    def __init__(self, pool: Pool, audit_log: AuditLog, notices: Notices, *, now_ms: Callable[[], int]) -> None:
        self._pool = pool
        self._notices = notices
        self._audit_log = audit_log
        self._now_ms = now_ms
        self._sql = load_queries("brownouts")

    async def list(self) -> list[Brownout]:
        """Every brownout that was set and not cleared, by name; also those that have expired."""
        with outages():
            return [brownout_of(row) for row in await self._pool.fetch(self._sql["list"])]

    async def set(
        self,
        models: str,
        level: Level,
        signature: Signature,
        *,
        for_ms: int,
        shed_percent: int,
        output_tokens: int,
        reroute_to: str = "",
        banner: str = "",
        unless_set: bool = False,
    ) -> Brownout | None:
        """Reduce a model, or a family by its pattern, for so long; gateways follow within a second.

        With `unless_set` one that is in force is left as it is, and None returned. Raises `ChangeRefused`.
        """
        signature, now_ms = signature.checked(), self._now_ms()
        brownout = Brownout(
            models=models,
            level=level,
            shed_percent=shed_percent,
            output_tokens=output_tokens,
            reroute_to=reroute_to,
            reason=signature.reason,
            author=signature.author,
            set_at_ms=now_ms,
            expires_at_ms=now_ms + for_ms,
            banner=banner.strip(),
        )
        _check(brownout, for_ms)
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["lock"], models)
                row = await connection.fetchrow(self._sql["find"], models)
                before = None if row is None else brownout_of(row)
                if unless_set and before is not None and before.expires_at_ms > now_ms:
                    return None
                await connection.execute(
                    self._sql["set"],
                    models,
                    int(level),
                    shed_percent,
                    output_tokens,
                    reroute_to,
                    brownout.reason,
                    brownout.banner,
                    brownout.author,
                    brownout.set_at_ms,
                    brownout.expires_at_ms,
                )
                await self._audit_log.append(
                    connection, signature, "brownout.set", models, before=before, after=brownout
                )
                await self._tell(connection, brownout)
        return brownout

    async def _tell(self, connection: Connection, brownout: Brownout) -> None:
        until = datetime.fromtimestamp(brownout.expires_at_ms / 1000, UTC)
        fields: Fields = {
            "model": brownout.models,
            "level": int(brownout.level),
            "until": until.isoformat(timespec="seconds"),
            "reason": f"{brownout.reason} ({brownout.author})",
        }
        about = f"{brownout.models}/{int(brownout.level)}"
        await self._notices.raise_(connection, Kind.BROWNOUT, None, fields, subject=about)

    async def clear(self, models: str, signature: Signature) -> Brownout:
        """End a brownout before its time; returns what it was. Raises `ChangeRefused` if there is none."""
        signature = signature.checked()
        unset = ChangeRefused(
            f"There is no brownout of {models[:NAME_LENGTH_MAX]!r}; `tollgate brownout show` has all."
        )
        if "\0" in models:
            raise unset
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["lock"], models)
                row = await connection.fetchrow(self._sql["find"], models)
                if row is None:
                    raise unset
                before = brownout_of(row)
                await connection.execute(self._sql["clear"], models)
                await self._audit_log.append(connection, signature, "brownout.clear", models, before=before, after=None)
        return before


def _check(brownout: Brownout, for_ms: int) -> None:
    for what, name in (("A model or pattern", brownout.models), ("A model to reroute to", brownout.reroute_to or "-")):
        if not 0 < len(name) <= NAME_LENGTH_MAX or not name.isascii() or not name.isprintable() or " " in name:
            raise ChangeRefused(f"{what} is 1 to {NAME_LENGTH_MAX} printable characters without spaces.")
    if brownout.level is Level.NORMAL:
        raise ChangeRefused("Level 0 is no brownout; `tollgate brownout clear` ends one.")
    if brownout.level is Level.REROUTE and not brownout.reroute_to:
        raise ChangeRefused("Level 3 needs a model to reroute to: --to, or [brownout.reroute] in the configuration.")
    if brownout.reroute_to == brownout.models:
        raise ChangeRefused("A model is not rerouted to itself.")
    if not {"*", "?", "["}.isdisjoint(brownout.reroute_to):
        raise ChangeRefused("Calls are rerouted to one model, not to a pattern.")
    if not 0 <= brownout.shed_percent <= 100:
        raise ChangeRefused("A share is 0 to 100 percent.")
    if not 0 < brownout.output_tokens <= OUTPUT_LIMIT_TOKENS_MAX:
        raise ChangeRefused(f"An output limit is 1 to {OUTPUT_LIMIT_TOKENS_MAX} tokens.")
    if not 0 < for_ms <= FOR_MS_MAX:
        raise ChangeRefused("A brownout is for more than no time, and for at most 31 days.")
    if len(brownout.banner) > BANNER_LENGTH_MAX or (brownout.banner and not brownout.banner.isprintable()):
        raise ChangeRefused(f"A banner has at most {BANNER_LENGTH_MAX} printable characters.")
