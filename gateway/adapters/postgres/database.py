"""Connections to Postgres, all under the role that owns nothing; and reading named queries from the .sql files beside.

A lost or refused connection is one thing to callers: `LedgerUnavailable`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import asyncpg

# asyncpg's classes are generic for type checkers only, hence the quotes.
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
PooledConnection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

SERVICE_ROLE = "tollgate_service"

# The nil UUID stands for the system where a row wants an account.
SYSTEM = "00000000-0000-0000-0000-000000000000"


# A posting has the time at which its transaction began. One whose process sleeps, stopped or swapped out, is ended by
# the server before its day and month are closed: see `provider_costs.CLOSING_TIME`.
IDLE_IN_TRANSACTION_S = 60


class LedgerUnavailable(Exception):
    """Postgres cannot be reached or cannot serve now; nothing was changed."""


# Errors that time mends. What a statement did is then unknown only if it was the COMMIT, and every write is idempotent.
OUTAGES = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # the database takes no connections for now
    asyncpg.InvalidAuthorizationSpecificationError,  # nor this login: a password is being rotated
    asyncpg.IdleInTransactionSessionTimeoutError,  # we slept
    asyncpg.ReadOnlySQLTransactionError,  # a full disk, or a standby
    asyncpg.TransactionRollbackError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


@contextmanager
def outages() -> Iterator[None]:
    """Turn what means "Postgres is away" into `LedgerUnavailable`."""
    try:
        yield
    except OUTAGES as error:
        if isinstance(error, ValueError):  # asyncpg's own refusal of an argument, which no time mends
            raise
        raise LedgerUnavailable(f"{type(error).__name__}: {error}") from error


async def open_pool(
    url: str,
    *,
    connections_max: int,
    connect_timeout_s: float,
    command_timeout_s: float,
    idle_in_transaction_s: int = IDLE_IN_TRANSACTION_S,
) -> Pool:
    """Open a pool whose connections act as the service's role. It is given at connect time, so a reset keeps it.

    `idle_in_transaction_s`: how long a transaction may wait for us between two statements; 0: for ever.
    """
    with outages():
        return await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=connections_max,
            timeout=connect_timeout_s,
            command_timeout=command_timeout_s,
            server_settings={
                "role": SERVICE_ROLE,
                "application_name": "tollgate",
                "idle_in_transaction_session_timeout": f"{idle_in_transaction_s}s",
            },
        )


def load_queries(name: str) -> dict[str, str]:
    """Read `name`.sql: statements by the name in the "-- name: …" line above each."""
    parts = Path(__file__).with_name(f"{name}.sql").read_text(encoding="utf-8").split("-- name: ")
    return {part.partition("\n")[0].strip(): part.partition("\n")[2].strip() for part in parts[1:]}
