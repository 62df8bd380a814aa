"""Keys: issued with terms, rotated with an overlap, revoked; and what cannot be issued is named."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gateway.adapters.postgres.accounts import Account, AccountError
from gateway.adapters.postgres.keys import KeyRefused, NoSuchKey
from gateway.core.access.callers import Priority
from gateway.core.access.key_terms import KeyTerms
from gateway.core.access.keys import hash_key
from gateway.core.access.roles import Role
from tests.books import OPERATOR, Books, new_id

LATER = datetime(2100, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def account(books: Books) -> Account:
    return await books.account()


async def test_a_key_is_listed_with_its_terms_and_without_its_secret(books: Books, account: Account) -> None:
    ada = await books.members.create(account.id, "ada@example.com", Role.OWNER)
    terms = KeyTerms(
        name="laptop",
        member_id=ada.id,
        scopes=frozenset({"calls"}),
        expires_at=LATER,
        models=("gpt-4o*",),
        endpoints=("/v1/chat/*",),
        networks=("10.0.0.0/8", "2001:db8::1/128"),
        priority=Priority.LOW,
    )
    secret, key_id = await books.keys.issue(account.id, terms)
    await books.keys.issue(account.id, KeyTerms())
    newest, listed = await books.keys.listing(account.id)
    assert (listed.id, listed.terms, listed.member_email) == (key_id, terms, "ada@example.com")
    assert secret.startswith(listed.prefix)
    assert len(listed.prefix) == 12
    assert newest.terms == KeyTerms()
    assert await books.keys.listing(account.id, 1, (newest.created_at, newest.id)) == [listed]


@pytest.mark.parametrize(
    ("terms", "param"),
    [
        (KeyTerms(name="\0"), "name"),
        (KeyTerms(name="x" * 201), "name"),
        (KeyTerms(scopes=frozenset()), "scopes"),
        (KeyTerms(scopes=frozenset({"root"})), "scopes"),
        (KeyTerms(expires_at=datetime(2020, 1, 1, tzinfo=UTC)), "expires_at"),
        (KeyTerms(models=("[a-z]",)), "models"),
        (KeyTerms(models=("m",) * 65), "models"),
        (KeyTerms(endpoints=("/v1/ chat",)), "endpoints"),
        (KeyTerms(networks=("10.0.0.1/8",)), "networks"),
        (KeyTerms(networks=("home",)), "networks"),
        (KeyTerms(member_id="nobody"), "member_id"),
        (KeyTerms(member_id=new_id()), "member_id"),
    ],
)
async def test_what_cannot_be_issued_is_named(books: Books, account: Account, terms: KeyTerms, param: str) -> None:
    with pytest.raises(KeyRefused) as refusal:
        await books.keys.issue(account.id, terms)
    assert refusal.value.param == param
    assert await books.keys.listing(account.id) == []


async def test_a_key_is_not_issued_to_another_accounts_member_or_nobodys_account(
    books: Books, account: Account
) -> None:
    stranger = await books.members.create((await books.account()).id, "eve@example.com", Role.OWNER)
    with pytest.raises(KeyRefused):
        await books.keys.issue(account.id, KeyTerms(member_id=stranger.id))
    with pytest.raises(AccountError, match="no account"):
        await books.keys.issue(new_id(), KeyTerms())


async def test_a_rotated_key_works_on_until_the_overlap_ends(books: Books, account: Account) -> None:
    terms = KeyTerms(name="ci", models=("gpt-4o*",), expires_at=LATER)
    secret, old_id = await books.keys.issue(account.id, terms)
    before = datetime.now(UTC)
    another, new_key_id = await books.keys.rotate(old_id, 24 * HOUR)
    assert another != secret
    new, old = await books.keys.find(new_key_id), await books.keys.find(old_id)
    assert (new.terms, new.rotated_from) == (terms, old_id)
    assert old.terms.expires_at is not None
    assert timedelta(0) <= old.terms.expires_at - before - 24 * HOUR < timedelta(minutes=1)


async def test_an_overlap_never_prolongs_a_key(books: Books, account: Account) -> None:
    soon = datetime.now(UTC) + HOUR
    _, old_id = await books.keys.issue(account.id, KeyTerms(expires_at=soon))
    await books.keys.rotate(old_id, 24 * HOUR)
    assert (await books.keys.find(old_id)).terms.expires_at == soon


async def test_a_key_is_rotated_once_however_many_try(books: Books, account: Account) -> None:
    _, key_id = await books.keys.issue(account.id, KeyTerms())
    ended = await asyncio.gather(*(books.keys.rotate(key_id, HOUR) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(each, KeyRefused) for each in ended) == 4
    assert len(await books.keys.listing(account.id)) == 2


async def test_a_dead_key_is_not_rotated(books: Books, account: Account) -> None:
    _, revoked = await books.keys.issue(account.id, KeyTerms())
    await books.keys.revoke(revoked)
    with pytest.raises(KeyRefused, match="revoked or expired"):
        await books.keys.rotate(revoked, HOUR)
    for overlap in (-HOUR, timedelta(days=91)):
        with pytest.raises(KeyRefused, match="overlap"):
            await books.keys.rotate(revoked, overlap)


async def test_another_accounts_key_is_no_key(books: Books, account: Account) -> None:
    _, key_id = await books.keys.issue(account.id, KeyTerms())
    elsewhere = (await books.account()).id
    for asked, whose in ((key_id, elsewhere), ("key_1", account.id), ("\0", None)):
        with pytest.raises(NoSuchKey):
            await books.keys.revoke(asked, whose)
        with pytest.raises(NoSuchKey):
            await books.keys.find(asked, whose)
    assert (await books.keys.find(key_id)).revoked_at is None


async def test_the_audit_log_tells_of_a_keys_life_and_never_its_secret(books: Books, account: Account) -> None:
    first, key_id = await books.keys.issue(account.id, KeyTerms(name="ci"), by=OPERATOR)
    second, next_id = await books.keys.rotate(key_id, HOUR, by=OPERATOR)
    for _ in range(2):  # the second time nothing changes
        await books.keys.revoke(key_id, by=OPERATOR)
    told = [line for line in await books.audit_log.page(author="olga", count=9) if line.subject.startswith("key:")]
    assert [(line.action, line.subject.removeprefix("key:")) for line in reversed(told)] == [
        ("key.create", key_id),
        ("key.rotate", key_id),
        ("key.create", next_id),
        ("key.revoke", key_id),
    ]
    assert told[-1].after is not None
    assert told[-1].after["name"] == "ci"
    everything = await books.pool.fetchval("SELECT string_agg(audit_log::text, '') FROM audit_log")
    for secret in (first, second):
        assert secret[12:] not in everything
        assert hash_key(secret.encode()).hex() not in everything
