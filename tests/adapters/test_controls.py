"""Flags in Postgres, and the snapshot of them that a gateway follows."""

import asyncio

import pytest

from gateway.adapters.postgres.audit_log import AuditLog, ChangeRefused, Signature
from gateway.adapters.postgres.controls import ControlsFollower
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.postgres.flags import FlagDesk
from gateway.core.guard.flags import CHARGING, MAINTENANCE, Scope
from gateway.core.guard.policy import Controls
from tests.adapters.conftest import Clock
from tests.books import Books

DRILL = Signature("ann", "a drill")


@pytest.fixture
def desk(books: Books, clock: Clock) -> FlagDesk:
    return FlagDesk(books.pool, AuditLog(books.pool), now_ms=clock)


async def test_nothing_set_is_an_empty_snapshot(follower: ControlsFollower) -> None:
    await follower.step()
    assert follower.snapshot() == Controls()


async def test_a_flag_is_in_the_next_snapshot_and_read_once(desk: FlagDesk, follower: ControlsFollower) -> None:
    await follower.step()
    made = await desk.set(MAINTENANCE, True, Scope(percent=5), DRILL, banner="back soon")
    assert await follower.step() == 1
    flags = follower.snapshot().flags
    assert flags is not None
    assert flags.maintenance == made
    assert await follower.step() == 0


async def test_a_cleared_flag_is_gone(desk: FlagDesk, follower: ControlsFollower) -> None:
    await desk.set(MAINTENANCE, True, Scope(), DRILL)
    await follower.step()
    await desk.clear(MAINTENANCE, DRILL)
    await follower.step()
    assert follower.snapshot() == Controls()


async def test_a_flag_is_cleared_once(desk: FlagDesk) -> None:
    await desk.set(MAINTENANCE, True, Scope(), DRILL)
    cleared = await asyncio.gather(*(desk.clear(MAINTENANCE, DRILL) for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(each, ChangeRefused) for each in cleared) == 2


async def test_every_change_is_in_the_log_with_before_and_after(books: Books, desk: FlagDesk) -> None:
    await desk.set(CHARGING, True, Scope(percent=5), DRILL)
    await desk.set(CHARGING, True, Scope(percent=25), Signature("bob", "all is well"))
    await desk.clear(CHARGING, DRILL)
    cleared, second, first = await AuditLog(books.pool).page(count=10)
    assert (first.before, second.author, second.reason, cleared.after) == (None, "bob", "all is well", None)
    assert first.after == second.before
    assert second.after == cleared.before
    assert second.after is not None
    assert (second.after["scope"], second.after["value"]) == ({"percent": 25}, True)


async def test_changes_at_once_are_one_after_the_other(books: Books, desk: FlagDesk) -> None:
    await asyncio.gather(*(desk.set(CHARGING, True, Scope(percent=each), DRILL) for each in range(1, 9)))
    lines = await AuditLog(books.pool).page(count=10)
    assert [line.before for line in lines] == [*(line.after for line in lines[1:]), None]


async def test_a_flag_expires_on_time_whether_or_not_postgres_answers(
    books: Books, desk: FlagDesk, follower: ControlsFollower, clock: Clock
) -> None:
    await desk.set(MAINTENANCE, True, Scope(), DRILL, for_ms=1000)
    await follower.step()
    await books.pool.close()
    with pytest.raises(LedgerUnavailable):
        await follower.step()
    assert follower.snapshot().flags is not None
    assert follower.stale_s == 0
    clock.now_ms += 1000
    assert follower.stale_s == 1
    assert follower.snapshot() == Controls()


async def test_a_version_seen_has_every_change_up_to_it(
    books: Books, desk: FlagDesk, follower: ControlsFollower
) -> None:
    """A change that has not committed yet holds the version back, so none is ever skipped."""
    await follower.step()
    async with books.pool.acquire() as connection:
        slow = connection.transaction()
        await slow.start()
        await connection.execute(
            "INSERT INTO flag (name, value, reason, author) VALUES ('maintenance', true, 'x', 'y')"
        )
        other = asyncio.create_task(desk.set(CHARGING, False, Scope(), DRILL))
        assert await follower.step() == 0
        await slow.commit()
    await other
    await follower.step()
    flags = follower.snapshot().flags
    assert flags is not None
    assert flags.maintenance is not None
    assert flags.charging is not None


@pytest.mark.parametrize(
    ("name", "scope", "for_ms", "banner"),
    [
        ("charging", Scope(), None, ""),
        ("nul\0", Scope(), None, ""),
        (MAINTENANCE, Scope(percent=101), None, ""),
        (MAINTENANCE, Scope(percent=-1), None, ""),
        (MAINTENANCE, Scope(accounts=frozenset()), None, ""),
        (MAINTENANCE, Scope(accounts=frozenset({"Acme"})), None, ""),
        (MAINTENANCE, Scope(accounts=frozenset({"0197a3c2-0000-7000-8000-000000000001"})), None, ""),
        (MAINTENANCE, Scope(5, frozenset({"0197a3c2-0000-7000-8000-000000000001"})), None, ""),
        (MAINTENANCE, Scope(), 0, ""),
        (MAINTENANCE, Scope(), 10**18, ""),
        (MAINTENANCE, Scope(), None, "two\nlines"),
    ],
)
async def test_a_flag_that_cannot_be_meant_is_refused_and_leaves_nothing(
    books: Books, desk: FlagDesk, name: str, scope: Scope, for_ms: int | None, banner: str
) -> None:
    with pytest.raises(ChangeRefused):
        await desk.set(name, True, scope, DRILL, for_ms=for_ms, banner=banner)
    assert await desk.list() == []
    assert await AuditLog(books.pool).page(count=1) == []


@pytest.mark.parametrize("name", ["unset", "nul\0"])
async def test_what_is_not_set_cannot_be_cleared(desk: FlagDesk, name: str) -> None:
    with pytest.raises(ChangeRefused, match="not set"):
        await desk.clear(name, DRILL)
