"""Members: one owner is always left, removed people lose their keys, and nobody is in an account twice."""

import asyncio

import msgspec
import pytest

from gateway.adapters.postgres.accounts import Account
from gateway.adapters.postgres.members import MemberChange, MemberRefused, NoSuchMember
from gateway.core.access.key_terms import KeyTerms
from gateway.core.access.roles import Role
from tests.books import OPERATOR, Books, new_id


@pytest.fixture
async def account(books: Books) -> Account:
    return await books.account()


async def test_a_member_is_found_by_id_and_by_address_within_the_account_only(books: Books, account: Account) -> None:
    ada = await books.members.create(account.id, " Ada@example.com ", Role.OWNER, name="Ada", subject="idp|1")
    assert (ada.email, ada.role, ada.status) == ("Ada@example.com", Role.OWNER, "active")
    assert await books.members.find(account.id, ada.id) == ada
    assert await books.members.find(account.id, "ada@EXAMPLE.com") == ada
    assert await books.members.by_subject(account.id, "idp|1") == ada
    elsewhere = (await books.account()).id
    for asked in (ada.id, ada.email, "\0", new_id()):
        with pytest.raises(NoSuchMember):
            await books.members.find(elsewhere, asked)
    assert await books.members.by_subject(elsewhere, "idp|1") is None


@pytest.mark.parametrize(
    ("email", "name", "subject", "param"),
    [
        ("ada", "", None, "email"),
        ("a da@example.com", "", None, "email"),
        ("\0@example.com", "", None, "email"),
        ("a" * 250 + "@example.com", "", None, "email"),
        ("b@example.com", "a\0", None, "name"),
        ("b@example.com", "", "", "subject"),
        ("ADA@example.com", "", None, "email"),
        ("b@example.com", "", "idp|1", "subject"),
    ],
)
async def test_what_a_member_cannot_be_is_named(
    books: Books, account: Account, email: str, name: str, subject: str | None, param: str
) -> None:
    await books.members.create(account.id, "ada@example.com", Role.OWNER, subject="idp|1")
    with pytest.raises(MemberRefused) as refusal:
        await books.members.create(account.id, email, Role.VIEWER, name=name, subject=subject)
    assert refusal.value.param == param


@pytest.mark.parametrize("change", [{"role": Role.ADMIN}, {"status": "suspended"}, {"status": "removed"}])
async def test_the_last_owner_stays(books: Books, account: Account, change: dict[str, str]) -> None:
    ada = await books.members.create(account.id, "ada@example.com", Role.OWNER)
    changing = msgspec.convert(change, MemberChange)
    with pytest.raises(MemberRefused, match="last owner"):
        await books.members.change(account.id, ada.id, changing)
    await books.members.create(account.id, "bea@example.com", Role.OWNER)
    await books.members.change(account.id, ada.id, changing)


async def test_two_owners_who_leave_at_once_leave_one(books: Books, account: Account) -> None:
    for _ in range(5):
        for _ in range(2):
            await books.members.create(account.id, f"{new_id()}@example.com", Role.OWNER)
        leaving = MemberChange(status="removed")
        ended = await asyncio.gather(
            *(books.members.change(account.id, each.id, leaving) for each in await books.members.listing(account.id)),
            return_exceptions=True,
        )
        left = await books.members.listing(account.id)
        assert sum(isinstance(each, MemberRefused) for each in ended) == len(left) == 1


async def test_who_is_removed_loses_every_key_and_may_be_invited_again(books: Books, account: Account) -> None:
    bea = await books.members.create(account.id, "bea@example.com", Role.MEMBER)
    _, key_id = await books.keys.issue(account.id, KeyTerms(member_id=bea.id))
    await books.members.change(account.id, bea.id, MemberChange(status="removed"))
    assert (await books.keys.find(key_id)).revoked_at is not None
    with pytest.raises(NoSuchMember):
        await books.members.find(account.id, bea.id)
    again = await books.members.create(account.id, "bea@example.com", Role.VIEWER)
    assert [each.id for each in await books.members.listing(account.id)] == [again.id]


async def test_a_change_that_is_not_allowed_changes_nothing(books: Books, account: Account) -> None:
    bea = await books.members.create(account.id, "bea@example.com", Role.MEMBER)

    def refuse(old: object, new: object) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await books.members.change(account.id, bea.id, MemberChange(role=Role.OWNER), refuse)
    assert await books.members.find(account.id, bea.id) == bea


async def test_whoever_changes_a_member_stands_in_the_audit_log(books: Books, account: Account) -> None:
    await books.members.create(account.id, "owner@example.com", Role.OWNER)
    ada = await books.members.create(account.id, "ada@example.com", Role.MEMBER, by=OPERATOR)
    _, key_id = await books.keys.issue(account.id, KeyTerms(member_id=ada.id))
    for change in (MemberChange(role=Role.ADMIN), MemberChange(role=Role.ADMIN), MemberChange(status="removed")):
        await books.members.change(account.id, ada.id, change, by=OPERATOR)
    removed, changed, added = await books.audit_log.page(subject=f"member:{ada.id}", count=9)
    assert [each.action for each in (removed, changed, added)] == ["member.remove", "member.set", "member.add"]
    assert {each.author for each in (removed, changed, added)} == {"olga"}
    assert added.before is None
    assert changed.before is not None
    assert changed.after is not None
    assert (changed.before["role"], changed.after["role"]) == ("member", "admin")
    revoked, _ = await books.audit_log.page(subject=f"key:{key_id}", count=9)
    assert (revoked.author, revoked.action) == ("olga", "key.revoke")


async def test_a_member_who_cannot_be_added_leaves_no_line(books: Books, account: Account) -> None:
    await books.members.create(account.id, "ada@example.com", Role.OWNER)
    before = await books.audit_log.page(count=9)
    with pytest.raises(MemberRefused):
        await books.members.create(account.id, "ada@example.com", Role.OWNER)
    assert await books.audit_log.page(count=9) == before
