"""The schema: how it is brought up to date, and what keeps the ledger append-only and balanced."""

import threading
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import asyncpg
import psycopg
import pytest
from asyncpg import Connection, Record
from psycopg import sql

from gateway.adapters.postgres import schema
from gateway.adapters.postgres.database import SERVICE_ROLE, SYSTEM, open_pool
from gateway.resources import shipped

LEDGER = ("transfer", "entry", "call_usage", "idem")
INSERT = {
    "transfer": "INSERT INTO transfer (id, kind, account_id, event_at) VALUES (gen_random_uuid(), 'grant', %s, now())",
    "entry": "INSERT INTO entry (transfer_id, line, shard, account_id, bucket, amount)"
    " SELECT '00000000-0000-7000-8000-000000000001', n, 1, %s, 'promo', CASE n WHEN 1 THEN 5 ELSE -5 END"
    " FROM generate_series(1, 2) AS n",
    "call_usage": "INSERT INTO call_usage VALUES (gen_random_uuid(), 'end', %s, 'key_1', '/v1/embeddings', 'm', 'v',"
    " 'k', 'exact', '{}', 1, 1, 1, 0, '{}', 200, '', now())",
    "idem": "INSERT INTO idem VALUES (gen_random_uuid(), 'end', %s, 1, 1, '\\x00')",
}


@pytest.fixture
async def service(database_url: str) -> "AsyncIterator[Connection[Record]]":
    connection = await asyncpg.connect(database_url, server_settings={"role": SERVICE_ROLE})
    yield connection
    await connection.close()


def with_rows(owner: psycopg.Connection) -> psycopg.Connection:
    for statement in INSERT.values():
        owner.execute(statement.encode(), (SYSTEM,))
    return owner


def partitions(owner: psycopg.Connection) -> list[str]:
    rows = owner.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE relkind = 'r'"
    )
    return [row[0] for row in rows]


def changes(table: str) -> list[sql.Composed]:
    column = {"idem": "kind"}.get(table.split("_2")[0].removesuffix("_default"), "recorded_at")
    return [
        sql.SQL("UPDATE {} SET {column} = {column}").format(sql.Identifier(table), column=sql.Identifier(column)),
        sql.SQL("DELETE FROM {}").format(sql.Identifier(table)),
        sql.SQL("TRUNCATE {}").format(sql.Identifier(table)),
    ]


@pytest.mark.parametrize("table", LEDGER)
async def test_the_service_may_not_change_ledger_rows(service: "Connection[Record]", table: str) -> None:
    for statement in changes(table):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await service.execute(statement.as_string())


@pytest.mark.parametrize("replication_role", ["origin", "replica"])
def test_the_owner_may_not_change_ledger_rows_either(owner: psycopg.Connection, replication_role: str) -> None:
    with_rows(owner).execute(sql.SQL("SET session_replication_role = {}").format(replication_role))
    month = owner.execute("SELECT to_char(now() AT TIME ZONE 'UTC', '_YYYY_MM')").fetchone()
    assert month is not None
    holding = [table + month[0] for table in ("transfer", "entry", "call_usage")]
    assert set(holding) <= set(partitions(owner))
    for table in (*LEDGER, *holding):
        for statement in changes(table):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                owner.execute(statement)


def test_every_partition_refuses_to_be_emptied_new_ones_too(owner: psycopg.Connection) -> None:
    made = owner.execute("SELECT ensure_partitions(6)").fetchone()
    assert made == (9,)
    assert owner.execute("SELECT ensure_partitions(6)").fetchone() == (0,)
    names = partitions(owner)
    assert len(names) == 3 * 8
    owner.execute("SET session_replication_role = replica")
    for name in names:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            owner.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(name)))
    always = owner.execute("SELECT DISTINCT tgenabled::text FROM pg_trigger WHERE tgname LIKE 'keep_%'").fetchall()
    assert always == [("A",)]


def test_rows_of_a_month_without_a_partition_are_kept_and_do_not_block_new_partitions(
    owner: psycopg.Connection,
) -> None:
    owner.execute(
        "INSERT INTO transfer (id, kind, account_id, event_at, recorded_at)"
        " VALUES (gen_random_uuid(), 'grant', %s, now(), now() + interval '5 months')",
        (SYSTEM,),
    )
    assert owner.execute("SELECT ensure_partitions(6)").fetchone() == (8,)
    assert owner.execute("SELECT count(*) FROM transfer_default").fetchone() == (1,)


async def test_the_service_makes_partitions_without_owning_a_table(service: "Connection[Record]") -> None:
    assert await service.fetchval("SELECT ensure_partitions(4)") == 3
    owned = "SELECT count(*) FROM pg_class WHERE relowner = 'tollgate_service'::regrole"
    assert await service.fetchval(owned) == 0


async def test_entries_that_do_not_sum_to_zero_are_refused(service: "Connection[Record]") -> None:
    statement = (
        "INSERT INTO entry (transfer_id, line, shard, account_id, bucket, amount) VALUES ($1, 1, 1, $2, 'promo', 5)"
    )
    with pytest.raises(asyncpg.CheckViolationError, match="do not sum to zero"):
        await service.execute(statement, uuid4(), UUID(SYSTEM))


async def test_the_service_role_survives_the_reset_of_a_pooled_connection(database_url: str) -> None:
    async with await open_pool(database_url, connections_max=1, connect_timeout_s=5, command_timeout_s=5) as pool:
        for _ in range(2):
            assert await pool.fetchval("SELECT current_user") == SERVICE_ROLE
        async with pool.acquire() as connection:
            await connection.execute("RESET ALL")
            await connection.execute("RESET ROLE")
        assert await pool.fetchval("SELECT current_user") == SERVICE_ROLE


async def test_a_database_without_schema_is_refused_and_a_current_one_is_not(
    empty_database_url: str, database_url: str
) -> None:
    for url, fits in ((empty_database_url, False), (database_url, True)):
        connection = await asyncpg.connect(url)
        try:
            assert schema.is_current(url) is fits
            if fits:
                await schema.check(connection)
            else:
                with pytest.raises(schema.SchemaError, match="tollgate migrate"):
                    await schema.check(connection)
        finally:
            await connection.close()


async def test_a_schema_that_is_behind_is_refused_by_name(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("UPDATE alembic_version SET version_num = '0000'")
        with pytest.raises(schema.SchemaError, match="at schema 0000, this program needs 0"):
            await schema.check(connection)
    finally:
        await connection.close()


def test_concurrent_migrations_of_one_database_all_succeed(empty_database_url: str) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            schema.migrate(empty_database_url)
        except (schema.SchemaError, psycopg.Error) as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert schema.is_current(empty_database_url)


def test_a_server_that_is_away_is_one_line() -> None:
    with pytest.raises(schema.SchemaError, match=r"^The database could not be migrated: [^\n]+$"):
        schema.migrate("postgresql://nobody@127.0.0.1:1/none")


@pytest.fixture
def plain_owner_url(postgres_server_url: str, migrated_template: str) -> Iterator[str]:
    """An empty database whose owner is no superuser, but was given the service's role by one."""
    name = f"plain_{uuid4().hex}"
    quoted = sql.Identifier(name)
    with psycopg.connect(postgres_server_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(quoted))
        server.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(SERVICE_ROLE), quoted))
        server.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(quoted, quoted))
        parts = urlsplit(postgres_server_url)
        place = parts.netloc.rpartition("@")[2]
        yield urlunsplit(parts._replace(netloc=f"{name}:secret@{place}", path=f"/{name}"))
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(quoted))
        server.execute(sql.SQL("DROP ROLE {}").format(quoted))


async def test_neither_migrating_nor_serving_needs_a_superuser(plain_owner_url: str) -> None:
    schema.migrate(plain_owner_url)
    async with await open_pool(plain_owner_url, connections_max=1, connect_timeout_s=5, command_timeout_s=5) as pool:
        assert await pool.fetchval("SELECT current_user") == SERVICE_ROLE
        assert await pool.fetchval("SELECT ensure_partitions(4)") == 3
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute("CREATE TABLE mine (id int)")


def test_what_may_not_be_migrated_is_one_line(plain_owner_url: str, postgres_server_url: str) -> None:
    user = urlsplit(plain_owner_url).username
    assert user is not None
    with psycopg.connect(postgres_server_url, autocommit=True) as server:
        server.execute(sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(SERVICE_ROLE), sql.Identifier(user)))
    with pytest.raises(schema.SchemaError, match=r"^The database could not be migrated: [^\n]+$"):
        schema.migrate(plain_owner_url)
    assert not schema.is_current(plain_owner_url)


def test_every_migration_has_a_number_of_its_own() -> None:
    files = sorted((shipped("migrations") / "versions").glob("0*.py"))
    numbers = [path.name[:4] for path in files]
    assert len(set(numbers)) == len(numbers), numbers
    assert [number for number, path in zip(numbers, files, strict=True) if f'"{number}"' not in path.read_text()] == []
