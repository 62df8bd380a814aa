"""Roles: the tables of who may do what, and that nobody rises by them."""

from itertools import product

import pytest

from gateway.core.access.callers import Caller
from gateway.core.access.roles import Role, may_buy, may_have_key, may_manage_member, may_revoke_key, role_of

V, M, A, O = Role.VIEWER, Role.MEMBER, Role.ADMIN, Role.OWNER  # noqa: E741


def acting(role: Role | None, *scopes: str) -> Caller:
    return Caller("a", "k", member_id="me" if role else None, role=role, scopes=frozenset(scopes or {"manage"}))


@pytest.mark.parametrize(
    ("member", "scopes", "role"),
    [
        (None, ("calls", "buy"), None),
        (None, ("read",), V),
        (None, ("manage",), A),
        (O, ("read", "calls"), V),
        (O, ("calls",), None),
        (M, ("manage", "read"), M),
        (O, ("manage",), O),
    ],
)
def test_a_key_acts_with_the_role_of_its_member_as_far_as_its_scopes_go(
    member: Role | None, scopes: tuple[str, ...], role: Role | None
) -> None:
    assert role_of(acting(member, *scopes)) is role


@pytest.mark.parametrize(
    ("role", "own", "others"),
    # Whose keys one may issue: one's own; those of a viewer, member, admin, owner, and of nobody.
    [(V, False, "-----"), (M, True, "-----"), (A, True, "VMA-n"), (O, True, "VMAOn"), (None, None, "VMA-n")],
)
def test_who_may_issue_whose_keys(role: Role | None, own: bool | None, others: str) -> None:
    caller = acting(role)
    owners = [("other", V), ("other", M), ("other", A), ("other", O), (None, None)]
    got = "".join(
        letter if may_have_key(caller, *owner) else "-" for letter, owner in zip("VMAOn", owners, strict=True)
    )
    assert got == others
    if role is not None:
        assert may_have_key(caller, "me", role) is own
        assert may_revoke_key(caller, "me") is (role is not V)


def test_nobody_makes_a_key_that_acts_above_them() -> None:
    rank = [V, M, A, O]
    for mine, theirs in product(rank, rank):
        if may_have_key(acting(mine), "other", theirs):
            assert rank.index(theirs) <= rank.index(mine)


@pytest.mark.parametrize(("role", "manages"), [(V, ""), (M, ""), (A, "VM"), (O, "VMAO"), (None, "VM")])
def test_who_may_manage_whom(role: Role | None, manages: str) -> None:
    roles = {"V": V, "M": M, "A": A, "O": O}
    assert "".join(name for name, each in roles.items() if may_manage_member(acting(role), each)) == manages


def test_an_admin_raises_nobody_to_admin() -> None:
    assert not may_manage_member(acting(A), M, A)
    assert may_manage_member(acting(O), M, A)


def test_a_member_revokes_no_key_but_their_own() -> None:
    assert [may_revoke_key(acting(M), whose) for whose in ("me", "other", None)] == [True, False, False]
    assert [may_revoke_key(acting(A), whose) for whose in ("me", "other", None)] == [True, True, True]


def test_a_viewer_buys_nothing() -> None:
    assert [may_buy(acting(role, "buy")) for role in (V, M, A, O, None)] == [False, True, True, True, True]
    assert not may_buy(acting(O, "manage"))
