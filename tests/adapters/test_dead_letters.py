"""Dead letters: each is decided once, with a reason, and Redis agrees with the ledger afterwards."""

import psycopg
import pytest

from gateway.adapters.postgres.audit_log import ChangeRefused, Signature
from gateway.adapters.postgres.dead_letters import DeadLetterError, DeadLetters
from tests.books import Books, end_fields, settlement


@pytest.fixture
def letters(books: Books) -> DeadLetters:
    return DeadLetters(books.pool, books.ledger, books.audit_log)


async def refused(books: Books, owner: psycopg.Connection, *, epoch: int = 0) -> str:
    """A call of 70 µcr that Postgres refuses to take; returns its account, which had 100."""
    owner.execute("ALTER TABLE call_usage ADD CONSTRAINT broken CHECK (cost <> 70) NOT VALID")
    account = await books.account(grant=100)
    await books.pool.execute("DELETE FROM credit_outbox")
    posted = await books.post(books.event(end_fields(settlement(account.id, 70)), epoch=epoch))
    assert [reason.partition(":")[0] for reason in posted.dead] == ["refused"]
    return account.id


def mend(owner: psycopg.Connection) -> None:
    owner.execute("ALTER TABLE call_usage DROP CONSTRAINT broken")


async def told_redis(books: Books) -> list[int]:
    return [row["amount"] for row in await books.pool.fetch("SELECT amount FROM credit_outbox")]


async def test_a_letter_is_posted_once_what_kept_it_out_is_mended(
    books: Books, letters: DeadLetters, owner: psycopg.Connection
) -> None:
    account_id = await refused(books, owner)
    [letter] = await letters.list()
    assert (letter.state, letter.fields["account"]) == ("open", account_id)
    with pytest.raises(DeadLetterError, match="still refused"):
        await letters.retry(letter.id, Signature("ada", "too early"))
    assert await letters.count_open() == 1
    mend(owner)
    assert (await letters.retry(letter.id, Signature("ada", "the constraint is gone"))).state == "posted"
    assert (await books.accounts.balance(account_id)).total == 30
    assert (await letters.list(), await told_redis(books)) == ([], [])
    await books.require_sound()
    with pytest.raises(DeadLetterError, match="decided already"):
        await letters.retry(letter.id, Signature("ada", "again"))
    assert (await books.accounts.balance(account_id)).total == 30


async def test_a_letter_of_an_epoch_that_redis_has_forgotten_is_debited_there_when_it_is_posted(
    books: Books, letters: DeadLetters, owner: psycopg.Connection
) -> None:
    await refused(books, owner)
    await books.pool.execute("UPDATE shard SET epoch = 1")
    mend(owner)
    [letter] = await letters.list()
    await letters.retry(letter.id, Signature("ada", "after the rebuild"))
    assert await told_redis(books) == [-70]


@pytest.mark.parametrize(("epoch_now", "given_back"), [(0, [70]), (1, [])])
async def test_what_is_dismissed_goes_back_to_the_account_where_redis_debited_it(
    books: Books, letters: DeadLetters, owner: psycopg.Connection, epoch_now: int, given_back: list[int]
) -> None:
    account_id = await refused(books, owner)
    await books.pool.execute("UPDATE shard SET epoch = $1", epoch_now)
    [letter] = await letters.list()
    with pytest.raises(ChangeRefused, match="A reason must be"):
        await letters.dismiss(letter.id, Signature("ada", " "))
    dismissed = await letters.dismiss(letter.id, Signature("ada", "a test call"))
    assert (dismissed.state, dismissed.decision_reason) == ("dismissed", "a test call")
    assert (await letters.list(), len(await letters.list(with_decided=True))) == ([], 1)
    assert (await books.accounts.balance(account_id)).total == 100
    assert await told_redis(books) == given_back


async def test_what_holds_no_event_can_only_be_dismissed(books: Books, letters: DeadLetters) -> None:
    await books.post(books.event({b"nonsense": b"\xff\x00"}, shard=3))
    [letter] = await letters.list()
    with pytest.raises(DeadLetterError, match="holds no event"):
        await letters.retry(letter.id, Signature("ada", "hope"))
    await letters.dismiss(letter.id, Signature("ada", "noise"))
    with pytest.raises(DeadLetterError, match="no dead letter 999"):
        await letters.get(999)


async def test_letters_and_decisions_are_never_changed(
    books: Books, letters: DeadLetters, owner: psycopg.Connection
) -> None:
    await books.post(books.event({b"nonsense": b"1"}, shard=3))
    await letters.dismiss((await letters.list())[0].id, Signature("ada", "noise"))
    for change in ("DELETE FROM dead_letter", "UPDATE dead_letter_decision SET decision = 'posted'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            owner.execute(change)


async def test_a_decision_has_its_author_in_the_audit_log_and_one_that_fails_has_no_line(
    books: Books, letters: DeadLetters, owner: psycopg.Connection
) -> None:
    account_id = await refused(books, owner)
    [letter] = await letters.list()
    with pytest.raises(DeadLetterError, match="still refused"):
        await letters.retry(letter.id, Signature("ada", "too early"))
    await letters.dismiss(letter.id, Signature("olga", "a test call"))
    [line] = await books.audit_log.page(subject=f"dead_letter:{letter.id}", count=10)
    assert (line.author, line.action, line.reason) == ("olga", "dead_letter.dismissed", "a test call")
    assert (line.before or {})["account"] == account_id
