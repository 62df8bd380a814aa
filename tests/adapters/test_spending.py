"""Spending is what the usage lines sum to, however often and in whichever pieces it is rolled up."""

import asyncio
from datetime import timedelta

from gateway.adapters.postgres.identities import token_key_id
from gateway.adapters.postgres.spending import SpendingBook
from gateway.core.access.key_terms import KeyTerms
from gateway.core.access.roles import Role
from gateway.core.guard.anomaly import NO_KEY, Spending, Subject, Window
from tests.books import OPERATOR, Books
from tests.spending import spend, spend_hourly

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


async def rolled_up(books: Books) -> SpendingBook:
    book = SpendingBook(books.pool)
    while (await book.roll()).is_behind:
        pass
    return book


async def spending_of(book: SpendingBook, account_id: str) -> dict[Subject, Spending]:
    [(_, spent)] = await book.of(frozenset({account_id}), burst_minutes=10, least=0)
    return spent


async def test_the_past_of_an_account_is_parted_from_what_is_judged(books: Books) -> None:
    account = await books.account()
    await spend(books.pool, account.id, "k", 1, 0 * MINUTE)
    await spend(books.pool, account.id, "k", 10, 20 * MINUTE)
    await spend_hourly(books.pool, account.id, "k", 100, range(4, 7))
    for day in range(2, 5):
        await spend(books.pool, account.id, "k", 1000, day * DAY)
    book = await rolled_up(books)

    expected = Spending(1, Window(11, 300, 3), Window(311, 3000, 3))
    assert await spending_of(book, account.id) == {
        Subject(account.id): expected,
        Subject(account.id, None, NO_KEY): expected,
    }


async def test_an_account_spends_what_its_keys_do_and_a_member_what_theirs_do(books: Books) -> None:
    account = await books.account()
    member = await books.members.create(account.id, "a@example.com", Role.MEMBER)
    keys = books.keys
    _, own = await keys.issue(account.id, KeyTerms(name="own", member_id=member.id))
    _, second = await keys.issue(account.id, KeyTerms(name="second", member_id=member.id))
    _, loose = await keys.issue(account.id, KeyTerms(name="loose"))
    for key_id, amount in ((own, 1), (second, 10), (loose, 100)):
        await spend(books.pool, account.id, key_id, amount)
    book = await rolled_up(books)

    spent = await spending_of(book, account.id)
    assert {subject: each.hour.spent for subject, each in spent.items()} == {
        Subject(account.id): 111,
        Subject(account.id, member.id): 11,
        Subject(account.id, member.id, own): 1,
        Subject(account.id, member.id, second): 10,
        Subject(account.id, None, loose): 100,
    }


async def test_what_came_with_a_token_is_its_members_and_what_another_accounts_key_reported_the_accounts(
    books: Books,
) -> None:
    account, reporter = await books.account(), await books.account()
    member = await books.members.create(account.id, "a@example.com", Role.MEMBER)
    stranger = await books.members.create(reporter.id, "r@example.com", Role.MEMBER)
    _, own = await books.keys.issue(account.id, KeyTerms(member_id=member.id))
    _, reporting = await books.keys.issue(reporter.id, KeyTerms(member_id=stranger.id))
    for key_id, amount in ((own, 1), (token_key_id(member.id), 10), (reporting, 100)):
        await spend(books.pool, account.id, key_id, amount)
    book = await rolled_up(books)

    spent = await spending_of(book, account.id)
    assert {subject: each.hour.spent for subject, each in spent.items()} == {
        Subject(account.id): 111,
        Subject(account.id, member.id): 11,
        Subject(account.id, member.id, own): 1,
        Subject(account.id, member.id, NO_KEY): 10,
        Subject(account.id, None, NO_KEY): 100,
    }


async def test_rolling_up_again_from_anywhere_changes_nothing(books: Books) -> None:
    account = await books.account()
    await spend(books.pool, account.id, "k", 7, 90 * MINUTE)
    await spend(books.pool, account.id, "k", 5)
    book = await rolled_up(books)
    first = await spending_of(book, account.id)

    again, *_ = await asyncio.gather(rolled_up(books), rolled_up(books), rolled_up(books))
    assert await spending_of(again, account.id) == first
    assert (await again.roll()).account_ids == frozenset()


async def test_usage_that_is_committed_late_is_counted(books: Books) -> None:
    account = await books.account()
    book = await rolled_up(books)
    async with books.pool.acquire() as late:
        async with late.transaction():
            await spend(late, account.id, "late", 5)
            await spend(books.pool, account.id, "k", 1)
            assert (await book.roll()).account_ids == {account.id}
        assert (await book.roll()).account_ids == {account.id}

    assert (await spending_of(book, account.id))[Subject(account.id)].hour.spent == 6


async def test_what_is_not_compared_any_more_is_let_go_and_the_rest_stays(books: Books) -> None:
    account = await books.account()
    await spend_hourly(books.pool, account.id, "k", 100, range(1, 30))
    book = await rolled_up(books)
    before = await spending_of(book, account.id)
    minutes = await books.count("spending_minute")

    await book.forget()

    assert await books.count("spending_minute") < minutes
    assert await spending_of(book, account.id) == before


async def test_an_account_that_is_not_served_is_not_judged(books: Books) -> None:
    account = await books.account()
    await spend(books.pool, account.id, "k", 5)
    book = await rolled_up(books)
    await books.account_desk.set_status(account.id, "suspended", OPERATOR)

    assert await book.of(frozenset({account.id}), burst_minutes=10, least=0) == []


async def test_who_spent_too_little_to_break_any_rule_is_not_looked_at(books: Books) -> None:
    account = await books.account()
    await spend(books.pool, account.id, "k", 5)
    book = await rolled_up(books)

    assert await book.of(frozenset({account.id}), burst_minutes=10, least=5) == []
    assert len(await book.of(frozenset({account.id}), burst_minutes=10, least=4)) == 1
