"""Callers: cached, followed when they change, one uniform refusal, and a bound on trust while Postgres is away."""

import asyncio
import time
from datetime import timedelta
from ipaddress import ip_network

import asyncpg
import pytest
from msgspec.structs import replace

from gateway.adapters.postgres.callers import CallerDirectory
from gateway.adapters.postgres.members import MemberChange
from gateway.core.access.callers import Caller, Restrictions
from gateway.core.access.key_terms import KeyTerms
from gateway.core.access.keys import credential_of, make_key
from gateway.core.access.roles import Role
from gateway.core.errors import BillingUnavailable, Unauthenticated
from tests.books import OPERATOR, Books, new_id, terminate_clients
from tests.patience import PATIENCE_S


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def known(callers: CallerDirectory, header: bytes) -> Caller | None:
    """What the directory answers without waiting."""
    credential = credential_of(header)
    assert credential is not None
    return callers.known(credential)


def open_directory(books: Books, clock: Clock, cached_keys_max: int = 100) -> CallerDirectory:
    return CallerDirectory(
        books.pool,
        cached_keys_max=cached_keys_max,
        unknown_key_ttl_s=1.0,
        stale_s_max=60.0,
        poll_s=0.01,
        clock=clock,
        now_ms=lambda: int(clock.now * 1000),
    )


async def issue(books: Books) -> tuple[bytes, Caller]:
    account = await books.account()
    secret, key_id = await books.keys.issue(account.id)
    return b"Bearer " + secret.encode(), Caller(account.id, key_id)


async def test_a_key_is_looked_up_once_and_then_answered_without_waiting(books: Books, clock: Clock) -> None:
    callers = open_directory(books, clock)
    header, caller = await issue(books)
    assert known(callers, header) is None
    assert await callers.authenticate(header) == caller
    assert known(callers, header) == caller
    assert known(callers, header.replace(b"Bearer", b"bearer ")) == caller


async def test_every_refusal_is_the_same(books: Books, clock: Clock) -> None:
    callers = open_directory(books, clock)
    revoked, caller = await issue(books)
    await books.keys.revoke(caller.key_id)
    said = set()
    malformed = b"Bearer sk-tg-" + b"A" * 49
    for header in (None, b"", b"Bearer ", b"Basic eDp5", malformed, b"Bearer " + make_key(bytes(32)).encode(), revoked):
        for _ in range(2):
            with pytest.raises(Unauthenticated) as refusal:
                await callers.authenticate(header)
            said.add((refusal.value.body(), tuple(refusal.value.headers())))
    assert len(said) == 1


async def test_a_revoked_key_and_a_suspended_account_are_followed(books: Books, clock: Clock) -> None:
    callers = open_directory(books, clock)
    revoked, caller = await issue(books)
    suspended, other = await issue(books)
    assert [await callers.authenticate(header) for header in (revoked, suspended)] == [caller, other]
    await books.keys.revoke(caller.key_id)
    await books.account_desk.set_status(other.account_id, "suspended", OPERATOR)
    assert await callers.refresh_step() == 2
    assert known(callers, revoked) is None
    with pytest.raises(Unauthenticated):
        await callers.authenticate(revoked)
    found = known(callers, suspended)
    assert found is not None
    assert found.status == "suspended"


async def test_polling_follows_what_is_revoked(books: Books, clock: Clock) -> None:
    callers = open_directory(books, clock)
    header, caller = await issue(books)
    await callers.authenticate(header)
    polling = asyncio.create_task(callers.run())
    await books.keys.revoke(caller.key_id)
    async with asyncio.timeout(PATIENCE_S):
        while known(callers, header) is not None:
            await asyncio.sleep(0.01)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)


async def test_a_key_that_was_unknown_is_asked_for_again_only_after_a_while(books: Books, clock: Clock) -> None:
    callers = open_directory(books, clock)
    header = b"Bearer " + make_key(b"k" * 32).encode()
    with pytest.raises(Unauthenticated):
        await callers.authenticate(header)
    account = await books.account()
    sql = "INSERT INTO api_key (id, account_id, hash, prefix, changed_at) VALUES ('key_1', $1, sha256($2), '', 'epoch')"
    await books.pool.execute(sql, account.id, header.removeprefix(b"Bearer "))
    with pytest.raises(Unauthenticated):
        await callers.authenticate(header)
    clock.now += 1.1
    assert (await callers.authenticate(header)).key_id == "key_1"


async def test_one_key_is_asked_for_once_however_many_come_with_it(books: Books, clock: Clock) -> None:
    callers = open_directory(books, clock)
    header, caller = await issue(books)
    asked = [asyncio.create_task(callers.authenticate(header)) for _ in range(200)]
    await asyncio.sleep(0)
    asked[0].cancel()  # the one that asked leaves; the others still get their answer
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [caller] * 199


async def test_while_postgres_is_away_known_callers_work_for_a_bounded_time_and_unknown_ones_come_back(
    books: Books, clock: Clock
) -> None:
    callers = open_directory(books, clock)
    header, caller = await issue(books)
    stranger, _ = await issue(books)
    await callers.authenticate(header)
    await books.pool.close()
    clock.now += 59
    assert known(callers, header) == caller
    assert await callers.authenticate(header) == caller
    clock.now += 2
    assert known(callers, header) is None
    for unknown in (header, stranger):
        with pytest.raises(BillingUnavailable) as refusal:
            await callers.authenticate(unknown)
        assert refusal.value.retry_after_s == 1


async def test_a_cut_connection_is_mended_by_the_next_look(books: Books, clock: Clock, database_url: str) -> None:
    callers = open_directory(books, clock)
    header, caller = await issue(books)
    assert await terminate_clients(database_url) > 0
    found: Caller | None = None
    async with asyncio.timeout(PATIENCE_S):
        while found is None:
            try:
                found = await callers.authenticate(header)
            except BillingUnavailable:
                continue
    assert found == caller


async def test_the_cache_is_bounded_and_guessing_evicts_nobody(books: Books, clock: Clock) -> None:
    callers = open_directory(books, clock, cached_keys_max=2)
    issued = [await issue(books) for _ in range(3)]
    for header, _ in issued[:2]:
        await callers.authenticate(header)
    for guess in range(5):
        with pytest.raises(Unauthenticated):
            await callers.authenticate(b"Bearer " + make_key(bytes([guess]) * 32).encode())
    assert [known(callers, header) for header, _ in issued] == [issued[0][1], issued[1][1], None]
    await callers.authenticate(issued[2][0])
    assert [known(callers, header) for header, _ in issued] == [None, issued[1][1], issued[2][1]]


async def a_member(books: Books, caller: Caller, status: str = "active") -> str:
    """A member who has the caller's key."""
    member_id = new_id()
    sql = "INSERT INTO member (id, account_id, email, role, status) VALUES ($1, $2, 'a@example.com', 'member', $3)"
    await books.pool.execute(sql, member_id, caller.account_id, status)
    return member_id


async def test_a_key_carries_what_it_may_do_and_whose_it_is(books: Books, clock: Clock, database_url: str) -> None:
    callers = open_directory(books, clock)
    header, caller = await issue(books)
    member_id = await a_member(books, caller)
    await as_owner(
        database_url,
        "UPDATE api_key SET member_id = $1, scopes = '{calls}', models = '{gpt-4o*}', networks = '{10.0.0.0/8}',"
        " changed_at = clock_timestamp()",
        member_id,
    )
    await as_owner(database_url, "UPDATE account SET plan = 'team', priority = 'low', time_zone = 'Asia/Tokyo'")
    assert await callers.authenticate(header) == Caller(
        caller.account_id,
        caller.key_id,
        member_id=member_id,
        role="member",
        scopes=frozenset({"calls"}),
        restrictions=Restrictions(models=("gpt-4o*",), networks=(ip_network("10.0.0.0/8"),)),
        plan="team",
        priority="low",
        time_zone="Asia/Tokyo",
    )


async def test_a_keys_priority_is_followed_and_a_rotated_key_keeps_it(
    books: Books, clock: Clock, database_url: str
) -> None:
    callers = open_directory(books, clock)
    header, caller = await issue(books)
    assert (await callers.authenticate(header)).key_priority == "normal"
    await as_owner(database_url, "UPDATE api_key SET priority = 'low', changed_at = clock_timestamp()")
    assert await callers.refresh_step() == 1
    assert known(callers, header) == replace(caller, key_priority="low")
    secret, _ = await books.keys.rotate(caller.key_id, timedelta(hours=1))
    successor = await callers.authenticate(b"Bearer " + secret.encode())
    assert (successor.priority, successor.key_priority) == ("normal", "low")


async def test_an_expired_key_is_an_unknown_one(books: Books, clock: Clock, database_url: str) -> None:
    callers = open_directory(books, clock)
    header, _ = await issue(books)
    await as_owner(database_url, "UPDATE api_key SET expires_at = now() + interval '10 s'")
    assert (await callers.authenticate(header)).expires_at_ms is not None
    clock.now += 11
    assert known(callers, header) is None
    with pytest.raises(Unauthenticated):
        await callers.authenticate(header)


@pytest.mark.parametrize(("status", "becomes"), [("suspended", "suspended"), ("removed", None)])
async def test_a_member_out_of_service_is_followed(
    books: Books, clock: Clock, database_url: str, status: str, becomes: str | None
) -> None:
    callers = open_directory(books, clock)
    header, caller = await issue(books)
    await as_owner(database_url, "UPDATE api_key SET member_id = $1", await a_member(books, caller))
    await callers.authenticate(header)
    await books.pool.execute("UPDATE member SET status = $1, changed_at = clock_timestamp()", status)
    assert await callers.refresh_step() == 1
    found = known(callers, header)
    assert (found.status if found else None) == becomes


async def test_a_viewer_makes_no_calls_whatever_its_key_says(books: Books, clock: Clock) -> None:
    callers = open_directory(books, clock)
    _, caller = await issue(books)
    member = await books.members.create(caller.account_id, "bea@example.com", Role.VIEWER)
    secret, _ = await books.keys.issue(caller.account_id, KeyTerms(member_id=member.id))
    header = b"Bearer " + secret.encode()
    assert (await callers.authenticate(header)).restrictions == Restrictions(may_call=False)
    await books.members.change(caller.account_id, member.id, MemberChange(role=Role.MEMBER))
    assert await callers.refresh_step() == 1
    found = known(callers, header)
    assert found is not None
    assert found.restrictions is None


async def test_a_review_of_one_key_stops_that_key_only_and_says_its_reference(books: Books, clock: Clock) -> None:
    callers = open_directory(books, clock)
    header, caller = await issue(books)
    secret, _ = await books.keys.issue(caller.account_id)
    other = b"Bearer " + secret.encode()
    for each in (header, other):
        await callers.authenticate(each)
    await books.pool.execute(
        "INSERT INTO account_review (cause, account_id, took_status, reference, key_id)"
        " VALUES ('spend', $1, false, 'rev_1', $2)",
        caller.account_id,
        caller.key_id,
    )
    assert await callers.refresh_step() == 1
    stopped, going_on = known(callers, header), known(callers, other)
    assert stopped is not None
    assert going_on is not None
    assert (stopped.status, stopped.review, going_on.status) == ("in_review", "rev_1", "active")
    await books.pool.execute("UPDATE account_review SET closed_at = now()")
    assert await callers.refresh_step() == 1
    assert known(callers, header) == caller


async def as_owner(database_url: str, statement: str, *arguments: str) -> None:
    """What the service's own role may not do."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()
