"""Callers: cached, followed when they change, one uniform refusal, and a bound on trust while Postgres is away."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.adapters.callers import CallerDirectory
from gateway.core.callers import Caller
from gateway.core.errors import BillingUnavailable, Unauthenticated
from gateway.core.keys import credential_of, make_key
from tests.books import Books, open_books, terminate_clients


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def books(database_url: str, redis_url: str) -> AsyncIterator[Books]:
    async with open_books(database_url, redis_url) as opened:
        yield opened


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
    )


async def issue(books: Books) -> tuple[bytes, Caller]:
    account = await books.account()
    secret, key_id = await books.accounts.issue_key(account.id)
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
    await books.accounts.revoke_key(caller.key_id)
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
    await books.accounts.revoke_key(caller.key_id)
    await books.accounts.set_status(other.account_id, "suspended")
    assert await callers.refresh_step() == 2
    assert known(callers, revoked) is None
    with pytest.raises(Unauthenticated):
        await callers.authenticate(revoked)
    found = known(callers, suspended)
    assert found is not None
    assert found.suspended


async def test_polling_follows_within_a_second(books: Books, clock: Clock) -> None:
    callers = open_directory(books, clock)
    header, caller = await issue(books)
    await callers.authenticate(header)
    polling = asyncio.create_task(callers.run())
    await books.accounts.revoke_key(caller.key_id)
    async with asyncio.timeout(1):
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
    async with asyncio.timeout(5):
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
