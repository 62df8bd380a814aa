"""Statements: a closed month is told once and for ever, what comes late stands in the next, and the months chain."""

import csv
import random
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from gateway.adapters.postgres.audit import Finding, run_audit
from gateway.adapters.postgres.seals import Seals
from gateway.adapters.postgres.statements import NoStatement, NotYetSealed, Statements
from gateway.core.accounting.statements import month_bounds, next_month, statement_csv
from gateway.core.shards import shard_of
from gateway.web.statement_pdf import statement_pdf
from gateway.workers.bookkeeper import MonthClosing
from gateway.workers.sealer import Sealer
from tests.books import Books, end_fields, settlement

THIS = datetime.now(UTC).date().replace(day=1)
NEXT = next_month(THIS)
THIRD = next_month(NEXT)
LATER = month_bounds(THIRD)[1] + timedelta(hours=1)

MOVED = """
    WITH made AS (SELECT gen_random_uuid() AS id), transfers AS (
        INSERT INTO transfer (id, kind, account_id, reason, event_at, recorded_at)
        SELECT id, 'grant', $1::text::uuid, 'late', $4, $5 FROM made
    ), balances AS (
        UPDATE balance SET amount = amount + CASE bucket WHEN 'promo' THEN $3::bigint ELSE -$3::bigint END
        WHERE shard = $2 AND (account_id = $1::text::uuid AND bucket = 'promo' OR bucket = 'promotions')
    )
    INSERT INTO entry (transfer_id, line, shard, account_id, bucket, amount, recorded_at)
    SELECT id, line, $2, CASE line WHEN 1 THEN $1::text::uuid ELSE '00000000-0000-0000-0000-000000000000'::uuid END,
           (ARRAY['promo', 'promotions'])[line], CASE line WHEN 1 THEN $3::bigint ELSE -$3::bigint END, $5
    FROM made, generate_series(1, 2) AS line
"""


@pytest.fixture
def statements(books: Books) -> Statements:
    """As of a time when three months are over."""
    return Statements(books.pool, now=lambda: LATER)


async def move(books: Books, account_id: str, amount: int, *, event_at: datetime, recorded_at: datetime) -> None:
    await books.pool.execute(MOVED, account_id, shard_of(account_id), amount, event_at, recorded_at)


async def seal(books: Books) -> None:
    sealer = Sealer(Seals(books.pool), batch_max=1000)
    while (await Seals(books.pool).verify()).unsealed:
        await sealer.step()


async def chained(books: Books) -> list[Finding]:
    return [finding for finding in await run_audit(books.pool, None) if finding.name.startswith("14.")]


async def test_a_month_is_told_by_kind_and_model_and_sums_up(books: Books, statements: Statements) -> None:
    account = await books.account(grant=10_000)
    for cost in (100, 200):
        await books.post(books.event(end_fields(settlement(account.id, cost))))
    await seal(books)
    statement, content_hash = await statements.tell(account.id, THIS)
    assert [(m.kind, m.model, m.count, m.amount) for m in statement.movements] == [
        ("capture", "gpt-5.4", 2, -300),
        ("grant", "", 1, 10_000),
    ]
    assert (statement.opening, statement.closing, statement.is_closed) == (0, 9_700, True)
    assert statement.ledger_head == (await Seals(books.pool).verify()).head
    rows = list(csv.reader(statement_csv(statement, content_hash).splitlines()))
    assert ["closing", "", "", "", "0.0097", "9700", "", "", "", ""] in rows


async def test_a_closed_month_stays_as_it_was_told_and_what_is_late_stands_in_the_next(
    books: Books, statements: Statements
) -> None:
    account = await books.account(grant=1000)
    await seal(books)
    told = await statements.tell(account.id, THIS)
    await move(books, account.id, 70, event_at=month_bounds(THIS)[0], recorded_at=month_bounds(NEXT)[0])
    await seal(books)
    assert await statements.tell(account.id, THIS) == told
    assert statement_pdf(*told) == statement_pdf(*await statements.tell(account.id, THIS))
    following = (await statements.tell(account.id, NEXT)).statement
    assert (following.opening, following.closing) == (1000, 1070)
    assert (await chained(books))[0].holds


@pytest.mark.parametrize("seed", range(5))
async def test_each_closing_is_the_next_opening_whatever_moved_when(
    books: Books, statements: Statements, seed: int
) -> None:
    dice = random.Random(seed)
    account = await books.account(grant=10**6)
    since, until = month_bounds(THIS)[0], month_bounds(THIRD)[1]
    for _ in range(30):
        at = since + (until - since - timedelta(microseconds=1)) * dice.random()
        at = dice.choice([at, month_bounds(NEXT)[0], month_bounds(NEXT)[0] - timedelta(microseconds=1)])
        await move(books, account.id, dice.randrange(1, 10**12), event_at=since, recorded_at=at)
    await seal(books)
    months = [THIS, NEXT, THIRD]
    told = {month: (await statements.tell(account.id, month)).statement for month in dice.sample(months, 3)}
    openings = [told[month].opening for month in months]
    closings = [told[month].closing for month in months]
    assert openings == [0, *closings[:-1]]
    assert closings[-1] == await books.balance(account)
    [finding] = await chained(books)
    assert finding.holds, finding.examples


async def test_a_movement_slipped_into_a_closed_month_is_found(books: Books, statements: Statements) -> None:
    account = await books.account(grant=1000)
    await seal(books)
    await statements.tell(account.id, NEXT)
    await move(books, account.id, 5, event_at=month_bounds(NEXT)[0], recorded_at=month_bounds(NEXT)[0])
    [finding] = await chained(books)
    assert (finding.holds, finding.violations) == (False, 1)


async def test_a_month_is_not_closed_before_it_is_over_and_sealed(books: Books, statements: Statements) -> None:
    account = await books.account(grant=1000)
    with pytest.raises(NotYetSealed):
        await statements.tell(account.id, THIS)
    still_open = Statements(books.pool, now=lambda: month_bounds(THIS)[1] + timedelta(seconds=1))
    statement, content_hash = await still_open.tell(account.id, THIS)
    assert (statement.is_closed, content_hash, statement.closing) == (False, "", 1000)
    assert await books.count("statement") == 0


@pytest.mark.parametrize("month", [date(1999, 1, 1), date(2999, 1, 1)])
async def test_there_is_no_statement_before_the_account_or_ahead(
    books: Books, statements: Statements, month: date
) -> None:
    account = await books.account()
    with pytest.raises(NoStatement):
        await statements.tell(account.id, month)


async def test_closing_a_month_makes_every_account_s_statement_once(books: Books, statements: Statements) -> None:
    for _ in range(3):
        await books.account(grant=10)
    await seal(books)
    closing = MonthClosing(statements, THIS, at_once=2)
    assert [await closing.step() for _ in range(3)] == [2, 1, 0]
    assert await Statements(books.pool, now=lambda: datetime.now(UTC)).unclosed(THIS, 10) == []


async def test_what_was_not_sealed_is_closed_in_the_next_round(books: Books, statements: Statements) -> None:
    closing = MonthClosing(statements, THIS, at_once=2)
    for _ in range(3):
        await books.account(grant=10)
    assert [await closing.step() for _ in range(2)] == [0, 0]
    await seal(books)
    assert [await closing.step() for _ in range(3)] == [2, 1, 0]


async def test_a_month_that_is_not_over_is_looked_at_again(books: Books) -> None:
    today = month_bounds(THIS)[0]
    closing = MonthClosing(Statements(books.pool, now=lambda: today), THIS)
    await books.account(grant=10)
    await seal(books)
    assert await closing.step() == 0
    today = month_bounds(THIRD)[0]
    assert await closing.step() == 1


async def test_a_stored_statement_cannot_be_changed(books: Books, statements: Statements, database_url: str) -> None:
    account = await books.account(grant=10)
    await seal(books)
    await statements.tell(account.id, THIS)
    with psycopg.connect(database_url, autocommit=True) as owner:
        for change in ("UPDATE statement SET closing = 0", "DELETE FROM statement", "TRUNCATE statement"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(change)


async def test_a_statement_whose_movements_do_not_make_its_closing_is_found(
    books: Books, statements: Statements, database_url: str
) -> None:
    account = await books.account(grant=10)
    await seal(books)
    await statements.tell(account.id, THIS)
    assert [finding.holds for finding in await chained(books)] == [True]
    with psycopg.connect(database_url, autocommit=True) as owner:  # who can switch off what protects them
        owner.execute("ALTER TABLE statement DISABLE TRIGGER keep_rows")
        owner.execute(
            "UPDATE statement SET content = told, hash = sha256(told) FROM (SELECT"
            " convert_to(replace(convert_from(content, 'UTF8'), '\"amount\":10', '\"amount\":11'), 'UTF8') AS told"
            " FROM statement) AS doctored"
        )
    assert [finding.holds for finding in await chained(books)] == [False]
