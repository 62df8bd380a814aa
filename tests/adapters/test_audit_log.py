"""The audit log: written with the change, read in pages, changed by nobody."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from gateway.adapters.postgres.audit_log import AuditLog, ChangeRefused, Signature
from gateway.adapters.postgres.database import Pool, open_pool


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    opened = await open_pool(database_url, connections_max=2, connect_timeout_s=5, command_timeout_s=5)
    yield opened
    await opened.close()


async def write(pool: Pool, subject: str, author: str = "ann") -> None:
    async with pool.acquire() as connection, connection.transaction():
        await AuditLog(pool).append(
            connection, Signature(author, "a drill"), "flag.set", subject, before=None, after={"value": True}
        )


async def test_a_line_tells_who_what_why_before_and_after(pool: Pool) -> None:
    await write(pool, "maintenance")
    (line,) = await AuditLog(pool).page(count=10)
    assert (line.author, line.action, line.subject, line.reason) == ("ann", "flag.set", "maintenance", "a drill")
    assert (line.before, line.after) == (None, {"value": True})


async def test_pages_go_from_the_newest_to_the_oldest(pool: Pool) -> None:
    for number in range(5):
        await write(pool, f"flag-{number}")
    first = await AuditLog(pool).page(count=3)
    second = await AuditLog(pool).page(before_id=first[-1].id, count=3)
    assert [line.subject for line in first + second] == ["flag-4", "flag-3", "flag-2", "flag-1", "flag-0"]


async def test_lines_are_found_by_their_subject_and_author(pool: Pool) -> None:
    await write(pool, "maintenance", "ann")
    await write(pool, "charging_enabled", "bob")
    assert [line.author for line in await AuditLog(pool).page(subject="maintenance", count=10)] == ["ann"]
    assert [line.subject for line in await AuditLog(pool).page(author="bob", count=10)] == ["charging_enabled"]


async def test_an_id_finds_the_lines_that_name_its_kind_too(pool: Pool) -> None:
    for subject in ("01a1", "account:01a1", "key:key_7", "account:01a12"):
        await write(pool, subject)
    found = await AuditLog(pool).page(subject="01a1", count=10)
    assert [line.subject for line in found] == ["account:01a1", "01a1"]
    assert [line.subject for line in await AuditLog(pool).page(subject="key_7", count=10)] == ["key:key_7"]


async def test_a_line_is_there_only_if_its_change_is(pool: Pool) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        async with pool.acquire() as connection, connection.transaction():
            await AuditLog(pool).append(
                connection, Signature("ann", "a drill"), "flag.set", "maintenance", before=None, after=None
            )
            await connection.execute("INSERT INTO flag (name, value, reason, author) VALUES ('', true, 'x', 'y')")
    assert await AuditLog(pool).page(count=10) == []


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET reason = 'other'", "DELETE FROM audit_log"])
async def test_the_service_may_not_change_a_line(pool: Pool, statement: str) -> None:
    await write(pool, "maintenance")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute(statement)


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_log SET reason = 'other'", "DELETE FROM audit_log", "TRUNCATE audit_log"]
)
async def test_the_owner_may_not_change_a_line_either(pool: Pool, database_url: str, statement: str) -> None:
    await write(pool, "maintenance")
    owner = await asyncpg.connect(database_url)
    try:
        await owner.execute("SET session_replication_role = replica")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await owner.execute(statement)
    finally:
        await owner.close()


@pytest.mark.parametrize(("author", "reason"), [("", "a drill"), ("ann", "  "), ("ann", "two\nlines"), ("a\x1b", "b")])
def test_a_change_without_a_readable_author_and_reason_is_refused(author: str, reason: str) -> None:
    with pytest.raises(ChangeRefused, match="printable"):
        Signature(author, reason).checked()
