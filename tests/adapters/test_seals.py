"""Seals over a real ledger: nothing is sealed too early or left out, and a superuser's tampering is found and named."""

from collections.abc import Iterator

import psycopg
import pytest

from gateway.adapters.postgres.seals import Seals
from gateway.core.holds import Phase
from gateway.workers.sealer import Sealer
from tests.books import Books, end_fields, lapse_fields, settlement


@pytest.fixture
def seals(books: Books) -> Seals:
    return Seals(books.pool)


@pytest.fixture
def intruder(database_url: str) -> Iterator[psycopg.Connection]:
    """A superuser who has turned the ledger's triggers off."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in ("transfer", "entry", "call_usage", "seal"):
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        for (partition,) in connection.execute("SELECT inhrelid::regclass::text FROM pg_inherits").fetchall():
            if connection.execute("SELECT relkind FROM pg_class WHERE oid = %s::regclass", [partition]).fetchone() == (
                "r",
            ):
                connection.execute(f"ALTER TABLE {partition} DISABLE TRIGGER ALL")
        yield connection


async def some_calls(books: Books) -> str:
    """A grant, captures, a void, and a lapse with its correction; returns the account's id."""
    account = await books.account(grant=10_000)
    for cost in (100, 0, 300, 400):
        await books.post(books.event(end_fields(settlement(account.id, cost))))
    late = settlement(account.id, 50)
    await books.post(books.event(lapse_fields(late)))
    await books.post(books.event(end_fields(late, phase=Phase.CORRECTION, charged=0)))
    return account.id


async def seal_all(seals: Seals, batch_max: int = 2) -> None:
    sealer = Sealer(seals, batch_max=batch_max)
    while await sealer.step():
        pass


async def test_all_that_is_posted_is_sealed_once_and_verified(books: Books, seals: Seals) -> None:
    await some_calls(books)
    before = await seals.verify()
    assert (before.seals, before.findings) == (0, ())
    await seal_all(seals)
    await seal_all(seals)
    sealed = await seals.verify()
    assert (sealed.transfers, sealed.unsealed, sealed.findings) == (before.unsealed, 0, ())
    assert sealed.transfers == await books.count("transfer")
    await some_calls(books)
    await seal_all(seals)
    later = await seals.verify(known_head=sealed.head.upper())
    assert (later.unsealed, later.findings) == (0, ())
    assert later.head != sealed.head


async def test_what_is_not_committed_yet_is_waited_for(books: Books, seals: Seals) -> None:
    account_id = await some_calls(books)
    sealer = Sealer(seals, batch_max=100)
    async with books.pool.acquire() as slow, slow.transaction():
        await books.ledger.post(slow, [books.event(end_fields(settlement(account_id, 10)))])
        await books.account(grant=5)  # another shard's, with a later ordinal
        assert await sealer.step() == 0
        assert (await seals.verify()).seals == 0
    while (await seals.verify()).unsealed:
        await sealer.step()
    assert (await seals.verify()).findings == ()


async def test_two_sealers_make_one_chain(books: Books, seals: Seals) -> None:
    await some_calls(books)
    mark = await seals.mark()
    async with books.pool.acquire() as other, other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock(7077004)")
        assert await seals.seal(mark, 10) == 0
    assert await seals.seal(mark, 10) > 0


TAMPERING = {
    "INSERT INTO entry (transfer_id, line, shard, account_id, bucket, amount)"
    " SELECT transfer_id, line + 7, shard, account_id, bucket, amount FROM entry"
    " WHERE transfer_id = (SELECT id FROM transfer WHERE kind = 'grant' LIMIT 1)": "has an entry that no seal holds",
    "UPDATE entry SET amount = amount + 7 WHERE bucket = 'promo' AND amount = -300": "was changed",
    "UPDATE entry SET account_id = gen_random_uuid() WHERE bucket = 'promo' AND amount = -300": "was changed",
    "DELETE FROM entry WHERE bucket = 'promo' AND amount = -300": "was changed",
    "UPDATE call_usage SET model = 'other' WHERE cost = 300": "was changed",
    "DELETE FROM call_usage WHERE cost = 300": "was changed",
    "UPDATE transfer SET event_at = event_at - interval '1 microsecond' WHERE kind = 'capture'": "was changed",
    "UPDATE transfer SET reason = 'else' WHERE kind = 'grant'": "was changed",
    "DELETE FROM transfer WHERE kind = 'grant'": "has vanished",
    "INSERT INTO transfer (id, kind, account_id, event_at, ordinal)"
    " SELECT gen_random_uuid(), 'grant', account_id, now(), ordinal FROM transfer LIMIT 1": "was slipped in",
    "UPDATE seal SET leaves = set_byte(leaves, 0, 255 - get_byte(leaves, 0)) WHERE number = 1": "does not follow",
    "UPDATE seal SET head = sha256(head) WHERE number = 1": "does not follow",
    "DELETE FROM seal WHERE number = 2": "have vanished",
}


async def test_tampering_with_triggers_off_is_found_and_named(
    books: Books, seals: Seals, intruder: psycopg.Connection
) -> None:
    for tampering, said in TAMPERING.items():
        await some_calls(books)
        await seal_all(seals)
        known = set((await seals.verify()).findings)
        assert intruder.execute(tampering).rowcount > 0, tampering
        new = set((await seals.verify()).findings) - known
        assert any(said in finding for finding in new), (tampering, new)


async def test_a_chain_that_is_cut_off_is_told_from_a_printed_head(
    books: Books, seals: Seals, intruder: psycopg.Connection
) -> None:
    await some_calls(books)
    await seal_all(seals)
    head = (await seals.verify()).head
    intruder.execute("DELETE FROM seal WHERE number > 1")
    assert (await seals.verify()).findings == ()
    [finding] = (await seals.verify(known_head=head)).findings
    assert head in finding


async def test_seals_are_never_changed_by_the_service_or_the_owner(
    books: Books, seals: Seals, database_url: str
) -> None:
    await some_calls(books)
    await seal_all(seals)
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("SET session_replication_role = replica")
        for change in ("UPDATE seal SET head = sha256(head)", "DELETE FROM seal", "TRUNCATE seal"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(change)


async def test_while_the_poster_is_behind_one_seal_at_a_time_is_made(books: Books, seals: Seals) -> None:
    await some_calls(books)
    sealer = Sealer(seals, batch_max=1, gives_way=lambda: True)
    assert [await sealer.step() for _ in range(3)] == [0, 0, 0]
    assert (await seals.verify()).seals == 3
