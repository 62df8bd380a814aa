"""The stores that tests run on: an embedded pair for the whole session, or the servers that the environment names.

TOLLGATE_DATABASE_URL and TOLLGATE_REDIS_URL choose real servers; their user must be allowed to create databases, and
the Redis database of the URL is emptied before each test. A server that is missing fails the tests: none is skipped.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from psycopg import sql
from redis import Redis

from gateway.sandbox.postgres import EmbeddedPostgres
from gateway.sandbox.store import EmbeddedStore
from gateway.sandbox.valkey import EmbeddedRedis
from tests.books import Books, open_books
from tests.books_redis import Desk, open_desk

# How long an example takes says more about the machine's other load than about the code.
hypothesis_settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("untimed")

# Each xdist worker has a server of its own, with some 100 MB of files.
MEMORY = Path("/dev/shm")
MEMORY_FREE_BYTES_MIN = 2 << 30


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where PostgreSQL keeps its files: in memory if there is room, as each test's database is 700 files to copy."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_FREE_BYTES_MIN:
        with TemporaryDirectory(prefix="tollgate-tests-", dir=MEMORY) as folder:
            yield Path(folder)
    else:
        yield tmp_path_factory.mktemp("postgres")


@pytest.fixture(scope="session")
def postgres_server_url(store_folder: Path) -> Iterator[str]:
    """A database of the session's PostgreSQL server, for making others; tests use `database_url`."""
    given = os.environ.get("TOLLGATE_DATABASE_URL")
    if given:
        yield given
        return
    with running(EmbeddedPostgres(store_folder, durable=False)) as url:
        yield url


@pytest.fixture(scope="session")
def redis_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The session's Redis server; tests use `redis_url`."""
    given = os.environ.get("TOLLGATE_REDIS_URL")
    if given:
        yield given
        return
    with running(EmbeddedRedis(tmp_path_factory.mktemp("redis"), durable=False)) as url:
        yield url


@contextmanager
def running(store: EmbeddedStore) -> Iterator[str]:
    """Run `store` outside of every test's event loop; its processes are bound to the main thread, not to a loop."""
    asyncio.run(store.start())
    try:
        yield store.url
    finally:
        asyncio.run(store.stop())


@pytest.fixture(scope="session")
def migrated_template(postgres_server_url: str) -> Iterator[str]:
    """The name of a database that carries the whole schema, migrated once a session, to be copied."""
    from gateway.adapters.postgres.schema import migrate  # slow to import, and most tests need no database

    with fresh_database(postgres_server_url) as url:
        migrate(url)
        yield Path(urlsplit(url).path).name


@pytest.fixture
def database_url(postgres_server_url: str, migrated_template: str) -> Iterator[str]:
    """A fresh database with the whole schema, dropped after the test."""
    with fresh_database(postgres_server_url, template=migrated_template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server_url: str) -> Iterator[str]:
    """A fresh database without any table, dropped after the test."""
    with fresh_database(postgres_server_url) as url:
        yield url


@pytest.fixture
def redis_url(redis_server_url: str) -> str:
    """A Redis database that holds nothing when the test starts."""
    with closing(Redis.from_url(redis_server_url)) as client:
        client.flushdb()
    return redis_server_url


@pytest.fixture
async def books(database_url: str, redis_url: str) -> AsyncIterator[Books]:
    """A bookkeeper's desk on those two."""
    async with open_books(database_url, redis_url) as opened:
        yield opened


@pytest.fixture
async def desk(books: Books, redis_url: str) -> AsyncIterator[Desk]:
    """The same with what stands in Redis."""
    async with open_desk(books, redis_url) as opened:
        yield opened


@contextmanager
def fresh_database(server_url: str, template: str = "template1") -> Iterator[str]:
    """Create a database as a copy of `template`; yields its URL, drops it even if clients are still connected.

    Its files are copied: by the default strategy, block by block through the log, a copy takes ten times the CPU.
    """
    name = f"test_{uuid4().hex}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
        sql.Identifier(name), sql.Identifier(template)
    )
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    with closing(psycopg.connect(server_url, autocommit=True)) as server:
        server.execute(create)
        try:
            yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
        finally:
            server.execute(drop)
