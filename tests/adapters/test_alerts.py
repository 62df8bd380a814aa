"""Warnings of low balances: told once, again after new credit, and only to who wants them."""

from datetime import timedelta

import pytest

from gateway.adapters.postgres.alerts import Alerts
from gateway.adapters.postgres.audit_log import AuditLog, Signature
from gateway.adapters.postgres.notices import Notices
from gateway.adapters.postgres.spending import SpendingBook
from gateway.core.guard.alerts import Wishes
from gateway.core.guard.notices import load_templates
from gateway.resources import shipped
from tests.books import Books
from tests.spending import spend

ANN = Signature("ann", "asked on the phone")


@pytest.fixture
def notices(books: Books) -> Notices:
    return Notices(books.pool, load_templates((shipped("config") / "notices.toml").read_text()))


@pytest.fixture
def alerts(books: Books, notices: Notices) -> Alerts:
    return Alerts(books.pool, notices, AuditLog(books.pool), Wishes(below=0, days=0))


async def test_a_low_balance_is_told_once_and_again_after_new_credit(
    books: Books, notices: Notices, alerts: Alerts
) -> None:
    account = await books.account(grant=5_000_000)
    await alerts.set(account.id, ANN, below=10_000_000, days=0)
    which = frozenset({account.id})

    assert [await alerts.warn(which), await alerts.warn(which)] == [1, 0]
    await books.accounts.grant(account.id, 1_000_000, "more, but not enough")
    assert [await alerts.warn(which), await alerts.warn(which)] == [1, 0]

    [again, first] = await notices.listing(count=9)
    assert first.fields == {"available": "5", "below": "10"}
    assert again.fields == {"available": "6", "below": "10"}


async def test_days_are_those_of_usual_use(books: Books, notices: Notices, alerts: Alerts) -> None:
    account = await books.account(grant=5_000_000)
    for day in (2, 4):
        await spend(books.pool, account.id, "k", 2_000_000, timedelta(days=day))
    book = SpendingBook(books.pool)
    while (await book.roll()).is_behind:
        pass
    await alerts.set(account.id, ANN, below=0, days=3)

    assert await alerts.warn(frozenset({account.id})) == 1
    [notice] = await notices.listing(count=9)
    assert notice.fields == {"available": "5", "days": 2, "below": 3, "per_day": "2"}


async def test_what_an_account_said_goes_before_what_holds_for_all(books: Books, notices: Notices) -> None:
    silent, content = await books.account(grant=1), await books.account(grant=1)
    alerts = Alerts(books.pool, notices, AuditLog(books.pool), Wishes(below=2, days=0))
    await alerts.set(content.id, ANN, below=0, days=0)

    assert (await alerts.wishes(silent.id)).below == 2
    assert (await alerts.wishes(content.id)).below == 0
    assert await alerts.warn(frozenset({silent.id, content.id})) == 1


async def test_a_change_stands_in_the_audit_log_with_what_was_and_leaves_what_is_not_named(
    books: Books, alerts: Alerts
) -> None:
    account = await books.account()
    await alerts.set(account.id, ANN, below=7, days=3)
    assert await alerts.set(account.id, ANN, below=None, days=5) == Wishes(below=7, days=5)
    line, *_ = await AuditLog(books.pool).page(subject=account.id, count=9)
    assert (line.action, line.author, line.reason) == ("alerts.set", ANN.author, ANN.reason)
    assert (line.before, line.after) == ({"below": 7, "days": 3}, {"below": 7, "days": 5})
