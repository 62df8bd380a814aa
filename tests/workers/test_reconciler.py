"""The daily reconciliation: once a day over all workers, after its hour; again where somebody could not be asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, time, timedelta

import pytest

from gateway.adapters.postgres.notices import Notices
from gateway.adapters.postgres.provider_costs import ProviderCosts
from gateway.adapters.postgres.reconciliation import Reports
from gateway.app.notices import load_words
from gateway.config import load
from gateway.core.accounting.reconciliation import Check, DayCosts, Verdict, compare, not_checked
from gateway.workers.reconciler import Reconciler, Reconciliation
from tests.books import Books, open_books
from tests.proxy.conftest import Logs

# The ledger of these tests begins today, so that the first day to reconcile is over tomorrow.
TODAY = datetime.now(UTC).date()


class FakeSource:
    """Answers as it is told to, once it may."""

    label = "a source"

    def __init__(self) -> None:
        self.answer: Check = compare("a source", "payments", 1, 1, ppm_max=0)
        self.asked: list[date] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def checks(self, of: DayCosts) -> tuple[Check, ...]:
        self.asked.append(of.day)
        await self.may_answer.wait()
        return (self.answer,)


class Clock:
    def __init__(self, days: int, hour: int) -> None:
        self.now = datetime.combine(TODAY + timedelta(days=days), time(hour), UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def books(database_url: str, redis_url: str) -> AsyncIterator[Books]:
    async with open_books(database_url, redis_url) as opened:
        await opened.account(grant=10**9)
        yield opened


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


def reconciler(books: Books, source: FakeSource, clock: Clock, *, days_back: int = 7, retry_s: int = 900) -> Reconciler:
    costs = ProviderCosts(books.pool, books.ledger, now_ms=lambda: int(clock.now.timestamp() * 1000))

    @asynccontextmanager
    async def opened() -> AsyncIterator[Reconciliation]:
        yield Reconciliation(costs, [source])

    notices = Notices(books.pool, load_words(load()))
    return Reconciler(
        Reports(books.pool), notices, opened, after_hour=3, days_back=days_back, retry_s=retry_s, now=clock
    )


async def test_a_day_is_reconciled_once_after_its_hour(books: Books, source: FakeSource) -> None:
    clock = Clock(days=1, hour=2)
    worker = reconciler(books, source, clock)
    assert await worker.step() == 0
    clock.now += timedelta(hours=1)
    assert [await worker.step() for _ in range(3)] == [1, 0, 0]
    assert source.asked == [TODAY]
    assert await books.count("reconciliation") == 1
    kept = await Reports(books.pool).newest(TODAY)
    assert kept is not None
    assert (kept.report.day, kept.report.is_over, kept.report.checks) == (TODAY, True, (source.answer,))


async def test_of_two_workers_one_does_it(books: Books, source: FakeSource) -> None:
    source.may_answer.clear()
    clock = Clock(days=1, hour=4)
    one, other = reconciler(books, source, clock), reconciler(books, source, clock)
    first = asyncio.create_task(one.step())
    while not source.asked:
        await asyncio.sleep(0)
    assert await other.step() == 0
    source.may_answer.set()
    assert await first == 1
    assert await other.step() == 0
    assert source.asked == [TODAY]
    assert other.newest == one.newest


async def test_one_that_died_in_the_middle_is_done_by_another(books: Books, source: FakeSource) -> None:
    source.may_answer.clear()
    clock = Clock(days=1, hour=4)
    dying = asyncio.create_task(reconciler(books, source, clock).step())
    while not source.asked:
        await asyncio.sleep(0)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    source.may_answer.set()
    assert await reconciler(books, source, clock).step() == 1


async def test_missed_days_are_made_up_for_from_the_newest_on_as_far_back_as_is_set(
    books: Books, source: FakeSource
) -> None:
    worker = reconciler(books, source, Clock(days=4, hour=4), days_back=3)
    while await worker.step():
        pass
    assert source.asked == [TODAY + timedelta(days=days) for days in (3, 2, 1)]


async def test_a_day_that_cannot_be_told_keeps_no_earlier_one_from_its_turn(books: Books, source: FakeSource) -> None:
    source.answer = not_checked("a source", "nobody can tell", is_outage=True)
    worker = reconciler(books, source, Clock(days=3, hour=4), retry_s=0)
    for _ in range(4):
        await worker.step()
    assert source.asked == [TODAY + timedelta(days=days) for days in (2, 1, 0, 2)]


async def test_days_before_the_ledger_began_are_not_reconciled(books: Books, source: FakeSource) -> None:
    assert await reconciler(books, source, Clock(days=0, hour=4)).step() == 0
    assert source.asked == []


async def test_who_could_not_be_asked_is_asked_again_but_not_at_once(books: Books, source: FakeSource) -> None:
    right, source.answer = source.answer, not_checked("a source", "it is down", is_outage=True)
    clock = Clock(days=1, hour=4)
    assert await reconciler(books, source, clock).step() == 0
    source.answer = right
    patient = reconciler(books, source, clock, retry_s=10 * 86_400)
    assert await patient.step() == 0
    assert len(source.asked) == 1
    assert patient.newest is not None
    assert len(patient.newest.outages) == 1
    eager = reconciler(books, source, clock, retry_s=1)
    assert await eager.step() == 1
    assert source.asked == [TODAY, TODAY]
    assert eager.newest is not None
    assert eager.newest.outages == ()


async def test_a_mismatch_is_an_error_in_the_log_and_stays_the_newest_report(
    books: Books, source: FakeSource, logs: Logs
) -> None:
    source.answer = compare("a source", "cents", 1000, 900, ppm_max=1000, notes=["pi_1: 100 too few"])
    worker = reconciler(books, source, Clock(days=1, hour=4))
    assert await worker.step() == 1
    (alarm,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert (alarm["event"], alarm["check"], alarm["examples"]) == (
        "the books disagree",
        "a source",
        ("pi_1: 100 too few",),
    )
    assert await books.pool.fetchval("SELECT count(*) FROM notice WHERE kind = 'mismatch'") == 1
    await worker.step()
    assert worker.newest is not None
    assert [check.verdict for check in worker.newest.mismatches] == [Verdict.MISMATCH]
