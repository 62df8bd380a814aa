"""Who is calling, by a token of an identity provider: from its claims to a member of an account, cached until it ends.

A member who changes is followed within a second, like a key. First sight of one can make the member, by policy.
"""

from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec
import structlog

from gateway.adapters.jwks import Verifier
from gateway.adapters.postgres.accounts import AccountError, Accounts
from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.callers import OVERLAP_S, poll, status_of
from gateway.adapters.postgres.database import LedgerUnavailable, Pool, load_queries, outages
from gateway.adapters.postgres.members import Member, MemberChange, MemberRefused, Members, NoSuchMember
from gateway.core.access.callers import Caller, Restrictions, may_call
from gateway.core.access.jwts import ClaimNames, Identity, identity_of, token_of
from gateway.core.access.keys import hash_key
from gateway.core.access.roles import Role
from gateway.core.errors import BillingUnavailable, Unauthenticated

log = structlog.get_logger(__name__)

BY_TOKEN = Signature("identity provider", "first seen with a token")


class TokenPolicy(msgspec.Struct, frozen=True):
    """What tokens may do, and whom they make a member of their account."""

    names: ClaimNames
    scopes: frozenset[str]
    creates: Role | None  # who is not known becomes a member of this role
    links_by_email: bool  # who is not known is the invited member of this address, if it is verified


class _Known(NamedTuple):
    """A member whose tokens are cached: as a caller, under which subject, and how many tokens stand for it."""

    caller: Caller
    subject: str
    tokens: int


class TokenCallers:
    """Looks the callers of tokens up. `clock` gives seconds of any monotonic clock, `now_ms` the time they end by."""

    def __init__(
        self,
        pool: Pool,
        accounts: Accounts,
        members: Members,
        verifier: Verifier,
        policy: TokenPolicy,
        *,
        cached_tokens_max: int,
        unknown_token_ttl_s: float,
        stale_s_max: float,
        poll_s: float,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._accounts = accounts
        self._members = members
        self._verifier = verifier
        self._policy = policy
        self._cached_tokens_max = cached_tokens_max
        self._unknown_token_ttl_s = unknown_token_ttl_s
        self._stale_s_max = stale_s_max
        self._poll_s = poll_s
        self._clock = clock
        self._now_ms = now_ms
        sql = load_queries("identities")
        self._one, self._changed = (f"{sql['member']}\n{sql[which]}" for which in ("one", "changed"))
        self._ends: OrderedDict[bytes, tuple[str, int]] = OrderedDict()  # hash → (member, when it ends, in ms)
        self._members_known: dict[str, _Known] = {}
        self._unknown: OrderedDict[bytes, float] = OrderedDict()  # hash → when to look again
        self._fresh_at = clock()

    def known(self, credential: bytes) -> Caller | None:
        """The caller, if the cache knows; None means that `authenticate` must be asked."""
        found = self._ends.get(credential)
        if found is None or self._clock() - self._fresh_at > self._stale_s_max or found[1] <= self._now_ms():
            return None
        self._ends.move_to_end(credential)
        return self._members_known[found[0]].caller

    async def authenticate(self, authorization: bytes | None) -> Caller:
        """Raises `Unauthenticated`, the same whatever is wrong, `IdentityUnavailable` or `BillingUnavailable`."""
        token = None if authorization is None else token_of(authorization)
        if token is None:
            raise Unauthenticated
        hashed = hash_key(token)
        known = self.known(hashed)
        if known is not None:
            return known
        if self._unknown.get(hashed, 0.0) > self._clock():
            raise Unauthenticated
        identity = identity_of(await self._verifier.claims(token.decode("ascii")), self._policy.names)
        try:
            caller = await self._caller_of(identity)
        except LedgerUnavailable as error:
            raise BillingUnavailable(retry_after_s=1) from error
        if caller is None:
            self._unknown[hashed] = self._clock() + self._unknown_token_ttl_s
            while len(self._unknown) > self._cached_tokens_max:
                self._unknown.popitem(last=False)
            raise Unauthenticated
        self._remember(hashed, caller, identity)
        return caller

    async def _caller_of(self, identity: Identity) -> Caller | None:
        try:
            account = await self._accounts.find(identity.account)
        except AccountError:
            return None
        member = await self._members.by_subject(account.id, identity.subject)
        if member is None:
            member = await self._first_seen(account.id, identity)
        if member is None:
            return None
        with outages():
            row = await self._pool.fetchrow(self._one, member.id)
        return self._read(row)

    async def _first_seen(self, account_id: str, identity: Identity) -> Member | None:
        """The member that somebody becomes who is not known, by policy.

        Who was removed is not seen first: an account's people must invite whoever is to come back.
        """
        if "@" not in identity.email:  # a member can be found by its id, too
            return None
        try:
            if self._policy.links_by_email and identity.is_email_verified:
                try:
                    return await self._link(account_id, identity)
                except NoSuchMember:
                    pass
            creates = self._policy.creates
            if creates is None or await self._members.was_removed(account_id, identity.subject, identity.email):
                return None
            made = await self._members.create(
                account_id, identity.email, creates, subject=identity.subject, by=BY_TOKEN
            )
        except MemberRefused as error:
            # Two first requests at once: the other one has made it.
            member = await self._members.by_subject(account_id, identity.subject)
            if member is None:
                log.warning("a token's member is not taken", account_id=account_id, reason=str(error))
            return member
        log.info("a member was seen first", account_id=account_id, member_id=made.id, role=made.role.value)
        return made

    async def _link(self, account_id: str, identity: Identity) -> Member:
        """Raises `NoSuchMember`; or `MemberRefused` where the member is somebody already."""

        def is_nobody_yet(old: Member, new: Member) -> None:
            if old.subject not in (None, new.subject):
                raise MemberRefused("The member of this address has another subject.", "subject")

        return await self._members.change(
            account_id, identity.email, MemberChange(subject=identity.subject), is_nobody_yet, BY_TOKEN
        )

    def _remember(self, hashed: bytes, caller: Caller, identity: Identity) -> None:
        assert caller.member_id is not None
        self._forget(hashed)
        self._unknown.pop(hashed, None)
        known = self._members_known.get(caller.member_id)
        if known is not None and known.subject != identity.subject:  # the member is nobody to the tokens of before
            self._forget_member(caller.member_id)
            known = None
        self._ends[hashed] = (caller.member_id, identity.expires_at_s * 1000)
        tokens = 1 if known is None else known.tokens + 1
        self._members_known[caller.member_id] = _Known(caller, identity.subject, tokens)
        while len(self._ends) > self._cached_tokens_max:
            self._forget(next(iter(self._ends)))

    def _forget(self, hashed: bytes) -> None:
        member_id, _ = self._ends.pop(hashed, ("", 0))
        if member_id:
            known = self._members_known.pop(member_id)
            if known.tokens > 1:
                self._members_known[member_id] = known._replace(tokens=known.tokens - 1)

    def _forget_member(self, member_id: str) -> None:
        for hashed in [each for each, (whose, _) in self._ends.items() if whose == member_id]:
            self._forget(hashed)

    async def refresh_step(self) -> int:
        """Bring the cache up to date with what changed; returns how many members did. Raises `LedgerUnavailable`."""
        looked_at = self._clock()
        since_s = looked_at - self._fresh_at + OVERLAP_S
        with outages():
            rows = await self._pool.fetch(self._changed, timedelta(seconds=since_s))
        changed = 0
        for row in rows:
            member_id = str(row["member_id"])
            known = self._members_known.get(member_id)
            if known is None:
                continue
            # A member that is somebody else at the provider now is nobody to the tokens of before.
            caller = self._read(row) if row["subject"] == known.subject else None
            if known.caller == caller:
                continue
            changed += 1
            if caller is None:
                self._forget_member(member_id)
            else:
                self._members_known[member_id] = known._replace(caller=caller)
        self._fresh_at = looked_at
        return changed

    async def run(self) -> None:
        await poll(self.refresh_step, self._poll_s, "changed members")

    def _read(self, row: Any) -> Caller | None:
        if row is None or row["member_status"] == "removed":
            return None
        member_id = str(row["member_id"])
        return Caller(
            account_id=str(row["account_id"]),
            key_id=token_key_id(member_id),
            status=status_of(row),
            on_disconnect=row["on_disconnect"],
            member_id=member_id,
            role=row["role"],
            is_barred=row["member_status"] == "suspended",
            scopes=self._policy.scopes,
            restrictions=None if may_call(self._policy.scopes, row["role"]) else Restrictions(may_call=False),
            review=row["review"] or "",
            plan=row["plan"],
            priority=row["priority"],
            time_zone=row["time_zone"],
        )


def token_key_id(member_id: str) -> str:
    """What stands in the books in the place of a key, for what a member did with a token; spending.sql knows it."""
    return "jwt_" + member_id.replace("-", "")
