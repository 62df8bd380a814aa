"""Reviews of one account that are opened, or released, in the same moment: it is served again after the last."""

import asyncio

import pytest
from msgspec import structs

from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.notices import Notices
from gateway.adapters.postgres.payment_causes import PaymentCauses
from gateway.adapters.postgres.reviews import Reviews
from gateway.adapters.stripe.objects import Cause
from gateway.core.guard.anomaly import Rule, Subject, Verdict
from gateway.core.guard.notices import load_templates
from gateway.resources import shipped
from tests.books import Books
from tests.patience import PATIENCE_S

OPERATOR = Signature("olga", "the customer has confirmed it")
DISPUTE = Cause("du_1", "pi_1", True, "dispute", "fraudulent", 500)
RADAR = Cause("prv_1", "pi_1", True, "Radar review", "rule", 500)
WARNING = Cause("issfr_1", "pi_1", True, "fraud warning", "made_with_stolen_card", 500)
UNUSUAL = Verdict(Rule.HOUR, 5000, 1000, 200, 60)

WAITING = """
    SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE NOT granted AND datname = current_database()
"""


@pytest.fixture
def notices(books: Books) -> Notices:
    return Notices(books.pool, load_templates((shipped("config") / "notices.toml").read_text()))


@pytest.fixture
def causes(books: Books, notices: Notices) -> PaymentCauses:
    return PaymentCauses(books.pool, notices)


@pytest.fixture
def reviews(books: Books, notices: Notices) -> Reviews:
    return Reviews(books.pool, notices, books.audit_log)


async def status(books: Books, account_id: str) -> str:
    return (await books.accounts.find(account_id)).status


async def test_of_two_causes_that_come_at_once_the_last_that_is_over_ends_the_review(
    books: Books, causes: PaymentCauses
) -> None:
    account = await books.account()
    async with books.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM account WHERE id = $1::uuid FOR UPDATE", account.id)
        following = [asyncio.create_task(causes.follow(account.id, each, reviews=True)) for each in (RADAR, WARNING)]
        async with asyncio.timeout(PATIENCE_S):
            while await books.pool.fetchval(WAITING) < 2:
                await asyncio.sleep(0.01)
    await asyncio.gather(*following)
    assert await status(books, account.id) == "in_review"

    await causes.follow(account.id, structs.replace(RADAR, is_open=False), reviews=True)
    await causes.follow(account.id, structs.replace(WARNING, is_open=False), reviews=True)

    assert await status(books, account.id) == "active"


async def test_of_two_reviews_that_are_released_at_once_one_serves_the_account_again(
    books: Books, causes: PaymentCauses, reviews: Reviews
) -> None:
    account = await books.account()
    for number in range(10):
        dispute = structs.replace(DISPUTE, id=f"du_{number}")
        reference = await reviews.open(Subject(account.id, None, None), UNUSUAL)
        assert reference is not None
        await causes.follow(account.id, dispute, reviews=True)

        await asyncio.gather(
            reviews.release(reference, OPERATOR),
            causes.follow(account.id, structs.replace(dispute, is_open=False), reviews=True),
        )

        assert await status(books, account.id) == "active"
