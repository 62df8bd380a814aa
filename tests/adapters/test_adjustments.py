"""What an operator corrects: the buckets it may touch, the contra it books, and that Redis is told."""

import pytest

from gateway.adapters.postgres.accounts import AccountError
from gateway.adapters.postgres.adjustments import Adjustments
from gateway.core.accounting.ledger import Bucket, Buckets, TransferKind
from tests.books import Books, end_fields, now_ms, settlement


@pytest.fixture
def adjustments(books: Books) -> Adjustments:
    return Adjustments(books.pool, books.ledger, now_ms=now_ms)


async def test_an_adjustment_moves_revenue_and_is_queued_for_redis(books: Books, adjustments: Adjustments) -> None:
    account = await books.account(grant=10)
    await books.post(books.event(end_fields(settlement(account.id, 30))))
    after = await adjustments.post(TransferKind.ADJUSTMENT, account.id, 25, "an outage")
    assert after == Buckets(paid=5)
    assert await books.system(Bucket.REVENUE) == 20 - 25
    assert await adjustments.post(TransferKind.ADJUSTMENT, account.id, -5, "too much") == Buckets()
    queued = await books.pool.fetch("SELECT amount FROM credit_outbox ORDER BY credit_seq")
    assert [row["amount"] for row in queued] == [10, 25, -5]
    await books.require_sound()


async def test_what_expires_of_paid_credit_is_breakage_and_of_promotional_is_not(
    books: Books, adjustments: Adjustments
) -> None:
    account = await books.account(grant=10)
    await adjustments.post(TransferKind.ADJUSTMENT, account.id, 5, "paid")
    assert await adjustments.post(TransferKind.EXPIRY, account.id, 12, "a year old") == Buckets(paid=3)
    assert await books.system(Bucket.BREAKAGE) == 2
    with pytest.raises(AccountError, match="no more than what is left"):
        await adjustments.post(TransferKind.EXPIRY, account.id, 4, "too much")
    await books.require_sound()


async def test_only_what_is_owed_is_written_off(books: Books, adjustments: Adjustments) -> None:
    account = await books.account(grant=10)
    await books.post(books.event(end_fields(settlement(account.id, 30))))
    with pytest.raises(AccountError, match="no more than what is owed"):
        await adjustments.post(TransferKind.WRITE_OFF, account.id, 21, "lost")
    assert await adjustments.post(TransferKind.WRITE_OFF, account.id, 20, "lost") == Buckets()
    assert await books.system(Bucket.WRITE_OFF) == -20
    await books.require_sound()


@pytest.mark.parametrize("reason", ["", "  ", "a\nb"])
async def test_every_adjustment_has_a_reason(books: Books, adjustments: Adjustments, reason: str) -> None:
    account = await books.account()
    with pytest.raises(AccountError, match="reason"):
        await adjustments.post(TransferKind.ADJUSTMENT, account.id, 1, reason)
