"""The controls of one process: a snapshot of what operators have decided, that follows Postgres within a second.

It is read whole whenever its version has changed. While Postgres is away, the last one goes on; only what expires is
still let go. To follow another table, give it the trigger `followed`, a statement in controls.sql and a field in
`Decisions`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.core.guard.brownout import Brownout, Level
from gateway.core.guard.flags import Flag, Scope
from gateway.core.guard.policy import Controls, Decisions


class ControlsFollower:
    def __init__(self, pool: Pool, *, read_timeout_s: float, now_ms: Callable[[], int]) -> None:
        self._pool = pool
        self._read_timeout_s = read_timeout_s
        self._now_ms = now_ms
        self._sql = load_queries("controls")
        self.version: int | None = None  # of the decisions in the snapshot; None: nothing was read yet
        self._decisions = Decisions()
        self._expires_at_ms: int | None = None
        self._snapshot = Controls()
        self._looked_at_ms = now_ms()

    def snapshot(self) -> Controls:
        """What is in force now: what has expired is let go here, however long Postgres takes to answer `step`."""
        if self._expires_at_ms is not None and self._expires_at_ms <= self._now_ms():
            self._apply()
        return self._snapshot

    @property
    def stale_s(self) -> float:
        """How long ago Postgres was last asked: what was decided since is not in the snapshot."""
        return (self._now_ms() - self._looked_at_ms) / 1000

    async def step(self) -> int:
        """Look once; 1 if something had changed. Raises `LedgerUnavailable`."""
        with outages():
            async with asyncio.timeout(self._read_timeout_s):
                version = await self._pool.fetchval(self._sql["version"])
                has_changed = version != self.version
                if has_changed:
                    await self._read()
        self._looked_at_ms = self._now_ms()
        if has_changed:
            self._apply()
        return int(has_changed)

    async def _read(self) -> None:
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            version: int = await connection.fetchval(self._sql["version"])
            decisions = await read_decisions(connection, self._sql)
        self.version, self._decisions = version, decisions

    def _apply(self) -> None:
        now_ms = self._now_ms()
        self._snapshot = self._decisions.at(now_ms)
        self._expires_at_ms = self._decisions.next_expiry_ms(now_ms)


async def read_decisions(connection: Connection, sql: dict[str, str]) -> Decisions:
    return Decisions(
        flags=tuple(map(flag_of, await connection.fetch(sql["flags"]))),
        brownouts=tuple(map(brownout_of, await connection.fetch(sql["brownouts"]))),
    )


def flag_of(row: Any) -> Flag:
    accounts = None if row["accounts"] is None else frozenset(map(str, row["accounts"]))
    return Flag(
        name=row["name"],
        value=row["value"],
        scope=Scope(row["percent"], accounts),
        reason=row["reason"],
        author=row["author"],
        banner=row["banner"],
        expires_at_ms=None if row["expires_at"] is None else int(row["expires_at"].timestamp() * 1000),
    )


def brownout_of(row: Any) -> Brownout:
    return Brownout(
        models=row["models"],
        level=Level(row["level"]),
        shed_percent=row["shed_percent"],
        output_tokens=row["output_tokens"],
        reroute_to=row["reroute_to"],
        reason=row["reason"],
        author=row["author"],
        set_at_ms=round(row["set_at"].timestamp() * 1000),
        expires_at_ms=round(row["expires_at"].timestamp() * 1000),
        banner=row["banner"],
    )
