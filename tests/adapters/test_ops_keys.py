"""The keys of operators, and accounts that they stop: shown once, revoked at once, signed and logged."""

import os

import pytest

from gateway.adapters.postgres.audit_log import AuditLog, ChangeRefused, Signature
from gateway.adapters.postgres.ops_keys import OpsKeys
from gateway.core.access.operators import Operator, Role
from tests.books import Books, new_id

BOSS = Signature("boss", "a new colleague")


@pytest.fixture
def keys(books: Books) -> OpsKeys:
    return OpsKeys(books.pool, AuditLog(books.pool), new_id=new_id, random_bytes=os.urandom)


async def test_a_key_proves_its_operator_until_it_is_revoked(keys: OpsKeys) -> None:
    secret, key_id = await keys.create("ann", Role.OPERATOR, BOSS)
    assert await keys.find(b"Bearer " + secret.encode()) == Operator("ann", Role.OPERATOR)
    await keys.revoke(key_id, BOSS)
    assert await keys.find(b"Bearer " + secret.encode()) is None
    with pytest.raises(ChangeRefused):
        await keys.revoke(key_id, BOSS)


async def test_the_secret_is_nowhere_in_the_database(books: Books, keys: OpsKeys) -> None:
    secret, _ = await keys.create("ann", Role.VIEWER, BOSS)
    for table in ("ops_key", "audit_log"):
        rows = await books.pool.fetch(f"SELECT row_to_json({table})::text FROM {table}")
        assert rows
        assert secret not in str(rows)
    (listed,) = await keys.list()
    assert secret.startswith(listed.prefix)
    assert len(listed.prefix) < 16


@pytest.mark.parametrize("given", [None, b"", b"Bearer ", b"Bearer sk-ops-" + b"A" * 43, b"Basic x", b"Bearer \xff"])
async def test_what_is_no_key_proves_nobody(keys: OpsKeys, given: bytes | None) -> None:
    await keys.create("ann", Role.ADMIN, BOSS)
    assert await keys.find(given) is None


def test_each_role_may_do_what_those_before_it_may() -> None:
    assert [[role.may(needed) for needed in Role] for role in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


async def test_an_account_is_suspended_with_a_reason_that_is_kept(books: Books) -> None:
    account = await books.account()
    desk = books.account_desk
    assert await desk.set_status(account.id, "suspended", BOSS) == "active"
    assert (await books.accounts.find(account.id)).status == "suspended"
    line, _ = await AuditLog(books.pool).page(subject=account.id, count=10)
    assert (line.author, line.before, line.after) == ("boss", {"status": "active"}, {"status": "suspended"})


async def test_a_review_is_ended_by_releasing_it(books: Books) -> None:
    account = await books.account()
    await books.pool.execute(
        "INSERT INTO account_review (account_id, cause, took_status) SELECT id, 'dp_1', true FROM account"
    )
    with pytest.raises(ChangeRefused, match="release"):
        await books.account_desk.set_status(account.id, "active", BOSS)
