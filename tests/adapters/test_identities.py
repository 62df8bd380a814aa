"""Callers by tokens: claims become members, by policy; members who change are followed; everybody else gets one 401."""

import asyncio
import time
from typing import Any

import jwt
import pytest

from gateway.adapters.jwks import ConfiguredKey, Verifier
from gateway.adapters.postgres.accounts import Account
from gateway.adapters.postgres.identities import TokenCallers, TokenPolicy
from gateway.adapters.postgres.members import MemberChange
from gateway.core.access.callers import Caller
from gateway.core.access.jwts import ClaimNames, token_credential_of
from gateway.core.access.roles import Role
from gateway.core.errors import BillingUnavailable, Unauthenticated
from tests.books import OPERATOR, Books, now_ms
from tests.provider import AUDIENCE, ED_KEY, ISSUER, pem

SCOPES = frozenset({"read", "manage"})


@pytest.fixture
async def account(books: Books) -> Account:
    return await books.account()


def open_callers(
    books: Books,
    *,
    creates: Role | None = None,
    links: bool = False,
    tokens_max: int = 10,
    clock: list[float] | None = None,
) -> TokenCallers:
    keys = ConfiguredKey(pem(ED_KEY))
    names = ClaimNames(account="account", member="sub", email="email")
    ticking = clock if clock is not None else [0.0]
    return TokenCallers(
        books.pool,
        books.accounts,
        books.members,
        Verifier(keys, issuer=ISSUER, audience=AUDIENCE, leeway_s=5.0),
        TokenPolicy(names, SCOPES, creates, links),
        cached_tokens_max=tokens_max,
        unknown_token_ttl_s=1.0,
        stale_s_max=60.0,
        poll_s=0.01,
        clock=lambda: ticking[0],
        now_ms=now_ms,
    )


def bearer(of: Account, subject: str, *, lives_s: float = 600, **changed: Any) -> bytes:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "account": of.name, "exp": time.time() + lives_s}
    return b"Bearer " + jwt.encode(claims | changed, ED_KEY, "EdDSA").encode()


def known(callers: TokenCallers, authorization: bytes) -> Caller | None:
    credential = token_credential_of(authorization)
    assert credential is not None
    return callers.known(credential)


async def test_a_member_is_known_by_its_subject_and_then_without_waiting(books: Books, account: Account) -> None:
    ada = await books.members.create(account.id, "ada@example.com", Role.ADMIN, subject="u-1")
    callers = open_callers(books)
    token = bearer(account, "u-1")
    assert known(callers, token) is None
    caller = await callers.authenticate(token)
    assert (caller.account_id, caller.member_id, caller.role, caller.scopes) == (account.id, ada.id, "admin", SCOPES)
    assert caller.key_id == "jwt_" + ada.id.replace("-", "")
    assert caller.restrictions is not None  # it lacks the scope for calls
    assert known(callers, token) == caller


async def test_whoever_is_nobody_gets_the_same_refusal(books: Books, account: Account) -> None:
    callers = open_callers(books)
    elsewhere = await books.account()
    await books.members.create(elsewhere.id, "eve@example.com", Role.OWNER, subject="u-1")
    tokens = [
        bearer(account, "u-1"),
        bearer(account, "u-1", account="no such account"),
        bearer(account, "u-1", email="ada@example.com"),
        bearer(elsewhere, "u-1", aud="another"),
        bearer(elsewhere, "u-1", lives_s=-60),
        b"Bearer nonsense",
    ]
    said = set()
    for token in tokens * 2:
        with pytest.raises(Unauthenticated) as refusal:
            await callers.authenticate(token)
        said.add(refusal.value.body())
    assert len(said) == 1
    assert await books.members.listing(account.id) == []


async def test_who_is_seen_first_becomes_a_member_once_where_policy_says_so(books: Books, account: Account) -> None:
    callers = open_callers(books, creates=Role.VIEWER)
    tokens = [bearer(account, "u-1", email="ada@example.com", n=number) for number in range(5)]
    found = await asyncio.gather(*map(callers.authenticate, tokens))
    [ada] = await books.members.listing(account.id)
    assert {each.member_id for each in found} == {ada.id}
    assert (ada.role, ada.subject, ada.email) == (Role.VIEWER, "u-1", "ada@example.com")
    with pytest.raises(Unauthenticated):  # without an address, there is nobody to make
        await callers.authenticate(bearer(account, "u-2"))
    with pytest.raises(Unauthenticated):  # and an address is not taken over
        await callers.authenticate(bearer(account, "u-3", email="ADA@example.com"))


async def test_an_invited_member_is_linked_by_address_only_where_policy_says_so(books: Books, account: Account) -> None:
    bea = await books.members.create(account.id, "bea@example.com", Role.ADMIN)
    token = bearer(account, "u-1", email="bea@example.com", email_verified=True)
    with pytest.raises(Unauthenticated):
        await open_callers(books).authenticate(token)
    callers = open_callers(books, links=True)
    assert (await callers.authenticate(token)).member_id == bea.id
    with pytest.raises(Unauthenticated):  # the address is linked to another subject now
        await callers.authenticate(bearer(account, "u-2", email="bea@example.com", email_verified=True))


async def test_who_was_removed_is_not_seen_first_and_comes_back_by_invitation_only(
    books: Books, account: Account
) -> None:
    callers = open_callers(books, creates=Role.MEMBER, links=True)
    token = bearer(account, "u-1", email="ada@example.com", email_verified=True)
    first = (await callers.authenticate(token)).member_id
    assert first is not None
    await books.members.change(account.id, first, MemberChange(status="removed"))
    await callers.refresh_step()
    with pytest.raises(Unauthenticated):
        await callers.authenticate(token)
    assert await books.members.listing(account.id) == []

    invited = await books.members.create(account.id, "ada@example.com", Role.VIEWER)
    assert (await open_callers(books, creates=Role.MEMBER, links=True).authenticate(token)).member_id == invited.id


async def test_who_was_removed_before_the_first_token_is_not_seen_first_either(books: Books, account: Account) -> None:
    invited = await books.members.create(account.id, "ada@example.com", Role.ADMIN)
    await books.members.change(account.id, invited.id, MemberChange(status="removed"))
    callers = open_callers(books, creates=Role.MEMBER)
    with pytest.raises(Unauthenticated):
        await callers.authenticate(bearer(account, "u-1", email="ADA@example.com"))
    assert await books.members.listing(account.id) == []


async def test_an_id_in_the_place_of_an_address_links_nobody(books: Books, account: Account) -> None:
    bea = await books.members.create(account.id, "bea@example.com", Role.ADMIN)
    with pytest.raises(Unauthenticated):
        await open_callers(books, links=True).authenticate(bearer(account, "u-1", email=bea.id, email_verified=True))
    assert await books.members.listing(account.id) == [bea]


@pytest.mark.parametrize("told", [{}, *({"email_verified": each} for each in (None, False, "true", 1))])
@pytest.mark.parametrize("creates", [None, Role.VIEWER])
async def test_an_address_that_is_not_verified_links_nobody(
    books: Books, account: Account, told: dict[str, Any], creates: Role | None
) -> None:
    bea = await books.members.create(account.id, "bea@example.com", Role.ADMIN)
    callers = open_callers(books, links=True, creates=creates)
    with pytest.raises(Unauthenticated) as refusal:
        await callers.authenticate(bearer(account, "u-1", email="bea@example.com", **told))
    with pytest.raises(Unauthenticated) as stranger:
        await callers.authenticate(bearer(account, "u-1"))
    assert refusal.value.body() == stranger.value.body()
    assert await books.members.listing(account.id) == [bea]


async def test_a_suspended_member_and_account_are_followed_and_a_removed_one_is_nobody(
    books: Books, account: Account
) -> None:
    await books.members.create(account.id, "owner@example.com", Role.OWNER, subject="u-0")
    ada = await books.members.create(account.id, "ada@example.com", Role.ADMIN, subject="u-1")
    callers = open_callers(books)
    tokens = [bearer(account, "u-1", n=number) for number in range(2)]
    for token in tokens:
        await callers.authenticate(token)
    for status in ("suspended", "active"):
        await books.members.change(account.id, ada.id, MemberChange(status=status))
        assert await callers.refresh_step() == 1
        for token in tokens:
            found = known(callers, token)
            assert found is not None
            assert (found.status, found.is_barred) == (status, status == "suspended")
    await books.account_desk.set_status(account.id, "in_review", OPERATOR)
    assert await callers.refresh_step() == 1
    assert [found.status for token in tokens if (found := known(callers, token))] == ["in_review"] * 2
    await books.members.change(account.id, ada.id, MemberChange(status="removed"))
    assert await callers.refresh_step() == 1
    for token in tokens:
        assert known(callers, token) is None
        with pytest.raises(Unauthenticated):
            await callers.authenticate(token)


@pytest.mark.parametrize("subject", [None, "u-2"])
async def test_who_is_somebody_else_at_the_provider_is_nobody_to_the_tokens_of_before(
    books: Books, account: Account, subject: str | None
) -> None:
    ada = await books.members.create(account.id, "ada@example.com", Role.ADMIN, subject="u-1")
    callers = open_callers(books)
    token = bearer(account, "u-1")
    await callers.authenticate(token)
    await books.members.change(account.id, ada.id, MemberChange(subject=subject))
    assert await callers.refresh_step() == 1
    assert known(callers, token) is None
    with pytest.raises(Unauthenticated):
        await callers.authenticate(token)
    if subject is not None:
        assert (await callers.authenticate(bearer(account, subject))).member_id == ada.id


async def test_the_first_token_of_a_new_subject_ends_those_of_the_one_before(books: Books, account: Account) -> None:
    """Also before anybody has looked at what changed: afterwards nobody would see that it had."""
    ada = await books.members.create(account.id, "ada@example.com", Role.ADMIN, subject="u-1")
    callers = open_callers(books)
    before, after = bearer(account, "u-1"), bearer(account, "u-2")
    await callers.authenticate(before)
    await books.members.change(account.id, ada.id, MemberChange(subject="u-2"))
    await callers.authenticate(after)
    await callers.refresh_step()
    assert known(callers, before) is None
    assert known(callers, after) is not None


async def test_a_token_is_known_until_it_ends(books: Books, account: Account) -> None:
    await books.members.create(account.id, "ada@example.com", Role.ADMIN, subject="u-1")
    callers = open_callers(books)
    ended = bearer(account, "u-1", lives_s=-2)  # within the leeway
    assert await callers.authenticate(ended)
    assert known(callers, ended) is None


async def test_the_cache_is_bounded(books: Books, account: Account) -> None:
    await books.members.create(account.id, "ada@example.com", Role.ADMIN, subject="u-1")
    callers = open_callers(books, tokens_max=2)
    tokens = [bearer(account, "u-1", n=number) for number in range(3)]
    for token in tokens:
        await callers.authenticate(token)
    assert [known(callers, token) is not None for token in tokens] == [False, True, True]


async def test_while_postgres_is_away_known_tokens_work_for_a_bounded_time(books: Books, account: Account) -> None:
    await books.members.create(account.id, "ada@example.com", Role.ADMIN, subject="u-1")
    clock = [0.0]
    callers = open_callers(books, clock=clock)
    token = bearer(account, "u-1")
    caller = await callers.authenticate(token)
    await books.pool.close()
    clock[0] = 59.0
    assert await callers.authenticate(token) == caller
    clock[0] = 61.0
    with pytest.raises(BillingUnavailable):
        await callers.authenticate(token)
