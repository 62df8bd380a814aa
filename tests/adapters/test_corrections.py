"""Corrections of balances: small ones at once, larger ones when a second person agrees, each one once and logged."""

import asyncio

import asyncpg
import pytest

from gateway.adapters.postgres.accounts import AccountError
from gateway.adapters.postgres.adjustments import Adjustments
from gateway.adapters.postgres.audit_log import AuditLog, ChangeRefused, Signature
from gateway.adapters.postgres.corrections import Corrections
from gateway.core.accounting.ledger import TransferKind
from tests.books import Books, new_id, now_ms

ADJUSTMENT = TransferKind.ADJUSTMENT
ANN, BOB = Signature("ann", "an outage"), Signature("bob", "looked at it")
ALONE = 100


@pytest.fixture
def corrections(books: Books) -> Corrections:
    adjustments = Adjustments(books.pool, books.ledger, now_ms=now_ms)
    return Corrections(books.pool, adjustments, AuditLog(books.pool), alone_ucr_max=ALONE, new_id=new_id)


async def test_a_small_correction_is_posted_at_once(books: Books, corrections: Corrections) -> None:
    account = await books.account(grant=10)
    posted = await corrections.ask(ADJUSTMENT, account.id, ALONE, ANN)
    assert (posted.state, posted.decided_by, await books.balance(account)) == ("posted", None, 110)
    (line,) = await AuditLog(books.pool).page(author="ann", count=10)
    assert (line.action, line.author, line.reason, line.subject) == ("correction.post", "ann", "an outage", posted.id)
    assert line.before == {"balance": "0.00001"}
    assert line.after is not None
    assert line.after["balance"] == "0.00011"
    await books.require_sound()


async def test_a_large_correction_waits_for_a_second_person(books: Books, corrections: Corrections) -> None:
    account = await books.account(grant=10)
    proposed = await corrections.ask(ADJUSTMENT, account.id, -(ALONE + 1), ANN)
    assert (proposed.state, await books.balance(account)) == ("proposed", 10)
    assert await corrections.listing(count=10) == [proposed]
    approved = await corrections.approve(proposed.id, BOB)
    assert (approved.state, approved.decided_by, await books.balance(account)) == ("posted", "bob", 10 - 101)
    assert await corrections.listing(count=10) == []
    assert await corrections.listing(decided_too=True, count=10) == [approved]
    await books.require_sound()


async def test_nobody_approves_their_own(books: Books, corrections: Corrections) -> None:
    account = await books.account()
    proposed = await corrections.ask(ADJUSTMENT, account.id, ALONE + 1, ANN)
    with pytest.raises(ChangeRefused, match="second person"):
        await corrections.approve(proposed.id, Signature("ann", "me again"))
    assert await books.balance(account) == 0
    with pytest.raises(asyncpg.CheckViolationError):  # nor does the database let anybody record it
        await books.pool.execute("UPDATE correction SET state = 'posted', decided_by = author")


async def test_a_large_one_in_slices_needs_a_second_person_too(books: Books, corrections: Corrections) -> None:
    account, other = await books.account(), await books.account()
    asked = await asyncio.gather(*(corrections.ask(ADJUSTMENT, each.id, 30, ANN) for each in (account, other) * 3))
    assert sorted(each.state for each in asked) == ["posted"] * 3 + ["proposed"] * 3
    assert (await corrections.ask(ADJUSTMENT, account.id, 30, BOB)).state == "posted"  # counted for each by itself


async def test_it_is_decided_once_however_many_do_so_at_once(books: Books, corrections: Corrections) -> None:
    account = await books.account()
    proposed = await corrections.ask(ADJUSTMENT, account.id, 500, ANN)
    decided = await asyncio.gather(
        *(corrections.approve(proposed.id, BOB) for _ in range(4)), corrections.reject(proposed.id, BOB),
        return_exceptions=True,
    )  # fmt: skip
    assert sum(isinstance(each, ChangeRefused) for each in decided) == 4
    assert await books.balance(account) in (0, 500)
    await books.require_sound()


async def test_a_rejected_one_moves_nothing(books: Books, corrections: Corrections) -> None:
    account = await books.account()
    proposed = await corrections.ask(ADJUSTMENT, account.id, 500, ANN)
    assert (await corrections.reject(proposed.id, ANN)).state == "rejected"
    with pytest.raises(ChangeRefused, match="rejected already"):
        await corrections.approve(proposed.id, BOB)
    assert await books.balance(account) == 0


async def test_what_the_balance_does_not_allow_is_not_even_proposed(books: Books, corrections: Corrections) -> None:
    account = await books.account(grant=10)
    for amount in (5, 500):
        with pytest.raises(AccountError, match="no more than what is owed"):
            await corrections.ask(TransferKind.WRITE_OFF, account.id, amount, ANN)
    with pytest.raises(AccountError, match="no account"):
        await corrections.ask(ADJUSTMENT, new_id(), 5, ANN)
    assert await corrections.listing(decided_too=True, count=10) == []
    assert await AuditLog(books.pool).page(author="ann", count=10) == []


async def test_what_changed_since_it_was_proposed_is_looked_at_again(books: Books, corrections: Corrections) -> None:
    account = await books.account(grant=200)
    first, second = [await corrections.ask(TransferKind.EXPIRY, account.id, 150, ANN) for _ in range(2)]
    await corrections.approve(first.id, BOB)
    with pytest.raises(AccountError, match="no more than what is left"):
        await corrections.approve(second.id, BOB)
    assert (await corrections.find(second.id)).state == "proposed"
    assert await books.balance(account) == 50


@pytest.mark.parametrize("unknown", ["", "nonsense", "0197a3c2-0000-7000-8000-000000000001"])
async def test_an_unknown_correction_is_refused(corrections: Corrections, unknown: str) -> None:
    with pytest.raises(ChangeRefused, match="no correction"):
        await corrections.approve(unknown, BOB)
