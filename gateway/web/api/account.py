"""`/api/users/profile` and `/api/balance`: who the caller is, and what its account has."""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from gateway.adapters.postgres.accounts import Accounts
from gateway.adapters.postgres.keys import Keys
from gateway.adapters.postgres.members import Members
from gateway.core.access.roles import Role, role_of
from gateway.core.holds import Balance
from gateway.core.money import format_credits
from gateway.web.access import Access
from gateway.web.api.keys import KeyShown
from gateway.web.api.keys import shown as shown_key
from gateway.web.api.members import MemberShown
from gateway.web.api.members import shown as shown_member
from gateway.web.operations import Answer, Operation


class AccountShown(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    name: str
    status: str
    plan: str
    time_zone: str


class Profile(msgspec.Struct, frozen=True, rename="camel"):
    """Who calls: `role` is what the caller acts with here, which the key's scopes may narrow."""

    account: AccountShown
    member: MemberShown | None
    key: KeyShown | None
    role: Role | None


class Amount(msgspec.Struct, frozen=True):
    """Credits as a decimal, and the same in millionths of a credit."""

    credits: str
    ucr: int


class BalanceShown(msgspec.Struct, frozen=True):
    """What the ledger holds and running calls may take of it; and the buckets, of which promo is used first."""

    balance: Amount
    held: Amount
    available: Amount
    promo: Amount
    paid: Amount
    debt: Amount


class AccountApi:
    def __init__(
        self,
        access: Access,
        accounts: Accounts,
        keys: Keys,
        members: Members,
        live_balance: Callable[[str], Awaitable[Balance]],
    ) -> None:
        self._access = access
        self._accounts = accounts
        self._keys = keys
        self._members = members
        self._live_balance = live_balance

    def operations(self) -> list[Operation]:
        return [
            Operation("GET", "/api/users/profile", self.profile, "Who the caller is.", Profile),
            Operation("GET", "/api/balance", self.balance, "What the account has.", BalanceShown),
        ]

    async def profile(self, request: web.Request) -> Answer:
        caller = await self._access.reading(request)
        account = await self._accounts.find(caller.account_id)
        member = await self._members.find(account.id, caller.member_id) if caller.member_id is not None else None
        key = await self._keys.find(caller.key_id, account.id) if caller.key_id.startswith("key_") else None
        return Answer(
            Profile(
                AccountShown(account.id, account.name, account.status, account.plan, account.time_zone),
                None if member is None else shown_member(member),
                None if key is None else shown_key(key),
                role_of(caller),
            )
        )

    async def balance(self, request: web.Request) -> Answer:
        caller = await self._access.reading(request)
        buckets = await self._accounts.balance(caller.account_id)
        live = await self._live_balance(caller.account_id)
        amounts = (live.balance, live.held, live.available, buckets.promo, buckets.paid, buckets.debt)
        return Answer(BalanceShown(*(Amount(format_credits(each), each) for each in amounts)))
