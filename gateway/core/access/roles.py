"""Roles: who may manage what in an account. Pure; the tables are the rule.

A viewer reads. A member manages keys of their own too; an admin every key, the members below admins, and when the
account is warned; an owner all. A key acts with its member's role if it has the scope `manage`, and as a viewer with
`read` alone. A key that is nobody's acts as an admin with `manage`.
"""

from enum import StrEnum

from gateway.core.access.callers import Caller, Scope


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


_RANK = {Role.VIEWER: 0, Role.MEMBER: 1, Role.ADMIN: 2, Role.OWNER: 3}


def role_of(caller: Caller) -> Role | None:
    """The role that a caller acts with on /api and /billing; None if it may not even read."""
    if Scope.MANAGE in caller.scopes:
        return Role.ADMIN if caller.role is None else Role(caller.role)
    return Role.VIEWER if Scope.READ in caller.scopes else None


def may_buy(caller: Caller) -> bool:
    return Scope.BUY in caller.scopes and caller.role != Role.VIEWER


def may_manage_account(caller: Caller) -> bool:
    """Whether a caller may say what concerns all of its account."""
    return role_of(caller) in (Role.ADMIN, Role.OWNER)


def may_have_key(caller: Caller, member_id: str | None, member_role: Role | None) -> bool:
    """Whether a caller may issue or rotate a key of this member (None: of the account), and so see its secret.

    Never one that could do more than the caller may.
    """
    role = role_of(caller)
    if role is None or role is Role.VIEWER:
        return False
    if member_id is not None and member_id == caller.member_id:
        return True
    return _RANK[role] >= _RANK[Role.ADMIN] and _RANK[member_role or Role.ADMIN] <= _RANK[role]


def may_give(caller: Caller, scopes: frozenset[str]) -> bool:
    """Whether a caller may make a key with these scopes: one that reports usage debits whatever it says."""
    role = role_of(caller)
    return Scope.REPORT not in scopes or (role is not None and _RANK[role] >= _RANK[Role.ADMIN])


def may_revoke_key(caller: Caller, member_id: str | None) -> bool:
    role = role_of(caller)
    if role is Role.MEMBER:
        return member_id is not None and member_id == caller.member_id
    return role in (Role.ADMIN, Role.OWNER)


def may_manage_member(caller: Caller, *roles: Role) -> bool:
    """Whether a caller may invite, change or remove a member who has, or is to have, these roles."""
    role = role_of(caller)
    if role is Role.OWNER:
        return True
    return role is Role.ADMIN and all(_RANK[each] < _RANK[Role.ADMIN] for each in roles)
