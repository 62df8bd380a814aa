"""Accounts, grants, keys and rate cards, as an operator handles them."""

import asyncio
from datetime import date

import pytest

from gateway.adapters.postgres.account_desk import AccountDesk, AccountTerms
from gateway.adapters.postgres.accounts import AccountError
from gateway.adapters.postgres.audit_log import ChangeRefused
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.core.access.key_terms import KeyTerms
from gateway.core.access.keys import hash_key, is_key
from gateway.core.guard.plans import Plans
from gateway.core.money import AMOUNT_UCR_MAX
from gateway.core.pricing.rates import RateCard, Rounding
from tests.books import OPERATOR, Books, end_fields, new_id, settlement


async def test_an_account_is_found_by_its_name_and_by_its_id(books: Books) -> None:
    made = await books.accounts.create("  Acme Ltd ")
    assert made.name == "Acme Ltd"
    assert await books.accounts.find("Acme Ltd") == await books.accounts.find(made.id) == made
    assert (await books.accounts.balance(made.id)).total == 0


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "x" * 201, "nul\0", "0197a3c2-0000-7000-8000-000000000001"])
async def test_an_unusable_name_is_refused(books: Books, name: str) -> None:
    with pytest.raises(AccountError, match=r"printable|is an id"):
        await books.accounts.create(name)


async def test_a_name_is_taken_once_even_at_the_same_moment(books: Books) -> None:
    made = await asyncio.gather(*(books.accounts.create("Acme") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(each, AccountError) for each in made) == 4
    assert await books.count("account") == 1
    assert await books.count("balance WHERE bucket = 'promo'") == 1


@pytest.mark.parametrize("unknown", ["nobody", "", "\0", "0197a3c2-0000-7000-8000-000000000001"])
async def test_an_unknown_account_is_named_in_the_error(books: Books, unknown: str) -> None:
    with pytest.raises(AccountError, match="no account"):
        await books.accounts.find(unknown)


async def test_grants_are_numbered_and_queued_for_redis(books: Books) -> None:
    account = await books.account()
    assert [await books.accounts.grant(account.id, amount, "welcome") for amount in (5, 7)] == [1, 2]
    queued = await books.pool.fetch("SELECT credit_seq, amount FROM credit_outbox ORDER BY 1")
    assert [tuple(row) for row in queued] == [(1, 5), (2, 7)]
    assert await books.balance(account) == 12
    assert await books.system("promotions") == -12
    await books.require_sound()


@pytest.mark.parametrize(
    ("amount", "reason", "why"),
    [
        (0, "gift", "more than 0"),
        (-1, "gift", "more than 0"),
        (1, " ", "reason"),
        (AMOUNT_UCR_MAX, "gift", "at most"),
        (2**80, "gift", "at most"),
    ],
)
async def test_a_grant_that_cannot_be_right_is_refused_and_leaves_nothing(
    books: Books, amount: int, reason: str, why: str
) -> None:
    account = await books.account(grant=1)
    with pytest.raises(AccountError, match=why):
        await books.accounts.grant(account.id, amount, reason)
    assert await books.balance(account) == 1
    assert (await books.accounts.find(account.id)).credit_seq == 1


async def test_an_account_may_hold_the_largest_amount(books: Books) -> None:
    account = await books.account(grant=AMOUNT_UCR_MAX)
    assert await books.balance(account) == AMOUNT_UCR_MAX


async def test_a_grant_to_nobody_is_refused(books: Books) -> None:
    with pytest.raises(AccountError, match="no account"):
        await books.accounts.grant(new_id(), 5, "gift")


async def test_of_a_key_only_its_hash_is_stored(books: Books) -> None:
    account = await books.account()
    secret, key_id = await books.keys.issue(account.id, KeyTerms(name="laptop"))
    assert is_key(secret.encode())
    assert key_id.startswith("key_")
    row = await books.pool.fetchrow("SELECT * FROM api_key")
    assert row is not None
    assert row["hash"] == hash_key(secret.encode())
    assert secret not in str(dict(row))
    (listed,) = await books.keys.listing(account.id)
    assert (listed.id, listed.terms.name, listed.revoked_at) == (key_id, "laptop", None)
    assert secret.startswith(listed.prefix)
    assert len(listed.prefix) < 15


async def test_a_key_is_revoked_once_and_stays_revoked(books: Books) -> None:
    account = await books.account()
    _, key_id = await books.keys.issue(account.id)
    await books.keys.revoke(key_id)
    (first,) = await books.keys.listing(account.id)
    await books.keys.revoke(key_id)
    (second,) = await books.keys.listing(account.id)
    assert first.revoked_at == second.revoked_at is not None


async def test_unknown_keys_and_accounts_of_keys_are_refused(books: Books) -> None:
    with pytest.raises(AccountError, match="no key"):
        await books.keys.revoke("key_1")
    with pytest.raises(AccountError, match="no account"):
        await books.keys.issue(new_id())


async def test_a_rate_card_version_stands_for_one_text(books: Books) -> None:
    card = RateCard("2026-openai", "a" * 64, date(2026, 1, 1), Rounding.EXACT, {}, {})
    await books.accounts.record_card(card, "text")
    await books.accounts.record_card(card, "text")
    assert await books.accounts.recorded_cards() == [("2026-openai", "text")]
    other = RateCard("2026-openai", "a" * 12 + "b" * 52, date(2026, 1, 1), Rounding.EXACT, {}, {})
    with pytest.raises(AccountError, match="another text"):
        await books.accounts.record_card(other, "other")


async def test_a_status_that_does_not_exist_is_refused(books: Books) -> None:
    account = await books.account()
    await books.account_desk.set_status(account.id, "suspended", OPERATOR)
    assert (await books.accounts.find(account.id)).status == "suspended"
    with pytest.raises(ChangeRefused, match="not a status"):
        await books.account_desk.set_status(account.id, "gone", OPERATOR)


async def test_ledger_lines_are_what_moved_the_balance_newest_first(books: Books) -> None:
    account = await books.account(grant=100)
    ended = settlement(account.id, 30)
    await books.post(books.event(end_fields(ended)))
    lines = await books.accounts.lines(account.id, 10)
    assert [(line.kind, line.amount) for line in lines] == [("capture", -30), ("grant", 100)]
    assert (lines[0].request_id, lines[0].model, lines[0].outcome) == (ended.request_id, "gpt-5.4", "exact")
    assert lines[1].reason == "for the test"


async def test_a_postgres_that_is_away_is_one_named_error(books: Books) -> None:
    await books.pool.close()
    with pytest.raises(LedgerUnavailable):
        await books.accounts.find("anybody")


async def test_an_accounts_terms_change_one_by_one_each_in_the_audit_log(books: Books) -> None:
    account = await books.account()
    await books.account_desk.set_terms(account.id, AccountTerms(plan="team", time_zone="Europe/Berlin"), OPERATOR)
    for _ in range(2):  # the second time nothing changes
        await books.account_desk.set_terms(account.id, AccountTerms(priority="low"), OPERATOR)
    found = await books.accounts.find(account.id)
    assert (found.plan, found.priority, found.time_zone) == ("team", "low", "Europe/Berlin")
    low, team, created = await books.audit_log.page(subject=account.id, count=9)
    assert (low.author, low.action, low.before, low.after) == (
        "olga", "account.set", {"priority": "normal"}, {"priority": "low"},
    )  # fmt: skip
    assert team.before == {"plan": "default", "time_zone": "UTC"}
    assert created.action == "account.create"


@pytest.mark.parametrize(
    "wrong",
    [{"plan": " "}, {"plan": "Team"}, {"plan": ""}, {"priority": "high"}, {"on_disconnect": "wait"},
     {"time_zone": "Mars"}, {"time_zone": "../../etc/passwd"}, {"time_zone": ""}, {"time_zone": "localtime"}],
)  # fmt: skip
async def test_terms_that_do_not_exist_are_refused_and_change_nothing(books: Books, wrong: dict[str, str]) -> None:
    account = await books.account()
    with pytest.raises(ChangeRefused):
        await books.account_desk.set_terms(account.id, AccountTerms(**wrong), OPERATOR)
    assert await books.accounts.find(account.id) == account


async def test_an_unknown_plan_is_refused_with_those_that_there_are(books: Books) -> None:
    account = await books.account()
    with pytest.raises(ChangeRefused, match="'tema' is no plan; choose one of: default, team"):
        await books.account_desk.set_terms(account.id, AccountTerms(plan="tema"), OPERATOR)


async def test_a_plan_that_is_configured_no_longer_is_told_with_its_accounts(books: Books) -> None:
    account = await books.account()
    await books.account_desk.set_terms(account.id, AccountTerms(plan="team"), OPERATOR)
    assert await books.account_desk.strays() == {}
    assert await AccountDesk(books.pool, books.audit_log, Plans({})).strays() == {"team": 1}


async def test_a_grant_stands_in_the_audit_log_with_its_author(books: Books) -> None:
    account = await books.account(grant=2_000_000)
    await books.accounts.grant(account.id, 500_000, "goodwill", "olga")
    line, *_ = await books.audit_log.page(subject=account.id, count=9)
    assert (line.author, line.action, line.reason) == ("olga", "account.grant", "goodwill")
    assert (line.before, line.after) == ({"balance": "2"}, {"balance": "2.5"})
