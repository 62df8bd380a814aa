"""The schema's version: brings a database up to date, and refuses one that is behind.

Alembic is slow to import, so it is touched only when there is something to migrate.
"""

from pathlib import Path

import asyncpg

from gateway.resources import shipped

# Advisory locks are per database; the number only has to differ from others used in it.
MIGRATION_LOCK = 7_077_001


class SchemaError(Exception):
    """The database's schema cannot be used or brought up to date."""


def newest_revision() -> str:
    """The newest revision this code knows, from the names of the version files ("0001_ledger.py" → "0001")."""
    return max(path.name.partition("_")[0] for path in _versions().glob("[0-9]*_*.py"))


def _versions() -> Path:
    return shipped("migrations") / "versions"


def migrate(url: str) -> None:
    """Bring the database at `url` to the newest revision; safe to run from several processes at once.

    Raises `SchemaError` with one line that says what to mend.
    """
    import psycopg

    try:
        if not is_current(url):
            _upgrade(url)
    except psycopg.Error as error:
        raise SchemaError(f"The database could not be migrated: {_first_line(error)}") from error


def is_current(url: str) -> bool:
    """Whether the database at `url` is at the newest revision."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except psycopg.errors.UndefinedTable:
            return False
    return row is not None and _is_at_least_newest(row[0])


def _upgrade(url: str) -> None:
    import psycopg
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    config = Config()
    config.set_main_option("script_location", str(shipped("migrations")).replace("%", "%%"))
    # The URL goes to libpq as it stands: SQLAlchemy reads some of its forms differently.
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as error:
        raise SchemaError(f"The database could not be migrated: {_first_line(error.orig or error)}") from error


async def check(
    connection: "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]",
) -> None:
    """Raise `SchemaError` unless the database is at the newest revision this code knows, or newer."""
    try:
        revision = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        revision = None
    if revision is None:
        raise SchemaError("The database has no schema yet; run `tollgate migrate` first.")
    if not _is_at_least_newest(revision):
        raise SchemaError(
            f"The database is at schema {revision}, this program needs {newest_revision()}; run `tollgate migrate`."
        )


def _is_at_least_newest(revision: str) -> bool:
    # A newer schema is fine: migrations only expand, so that old and new processes run side by side while rolling out.
    return revision >= newest_revision()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
