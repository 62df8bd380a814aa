"""Notices in Postgres: raised with what they tell of, once in their window, to whom they concern."""

import asyncio

import pytest

from gateway.adapters.postgres.audit_log import AuditLog, Signature
from gateway.adapters.postgres.notice_targets import NoticeTargets
from gateway.adapters.postgres.notices import NoticeError, Notices
from gateway.core.guard.notices import Fields, Kind, load_templates
from gateway.resources import shipped
from tests.books import Books

CAP: Fields = {"name": "day", "used": 8, "cap": 10, "percent": 80, "resets_at": "midnight"}
DISPUTE: Fields = {"payment": "pi_1", "amount": "$5.00", "reason": "fraudulent", "reference": "du_1"}

ANN = Signature("ann", "asked on the phone")


@pytest.fixture
def notices(books: Books) -> Notices:
    return Notices(books.pool, load_templates((shipped("config") / "notices.toml").read_text()))


@pytest.fixture
def targets(books: Books) -> NoticeTargets:
    return NoticeTargets(books.pool, AuditLog(books.pool))


async def add(targets: NoticeTargets, account_id: str | None, name: str) -> str:
    return await targets.add(account_id, "webhook", f"https://{name}.example/secret", ANN, secret="s", shown=name)


async def test_a_notice_that_is_raised_by_many_at_once_is_raised_once(books: Books, notices: Notices) -> None:
    account = await books.account()

    news = await asyncio.gather(*(notices.tell(Kind.SOFT_CAP, account.id, CAP, subject="day") for _ in range(20)))

    assert sorted(news) == [False] * 19 + [True]
    assert await books.count("notice") == 1


async def test_another_subject_another_account_and_the_next_window_are_news(books: Books, notices: Notices) -> None:
    one, other = await books.account(), await books.account()
    assert await notices.tell(Kind.SOFT_CAP, one.id, CAP, subject="day")

    assert await notices.tell(Kind.SOFT_CAP, one.id, CAP, subject="month")
    assert await notices.tell(Kind.SOFT_CAP, other.id, CAP, subject="day")
    await books.pool.execute("UPDATE notice_quiet SET until = now() - interval '1 s'")
    assert await notices.tell(Kind.SOFT_CAP, one.id, CAP, subject="day")


async def test_a_notice_of_a_transaction_that_fails_was_never_raised(books: Books, notices: Notices) -> None:
    account = await books.account()
    with pytest.raises(LookupError):
        async with books.pool.acquire() as connection, connection.transaction():
            assert await notices.raise_(connection, Kind.SOFT_CAP, account.id, CAP)
            raise LookupError

    assert await books.count("notice") == 0
    assert await notices.tell(Kind.SOFT_CAP, account.id, CAP)


async def test_each_kind_reaches_its_audience_and_no_other_account(
    books: Books, notices: Notices, targets: NoticeTargets
) -> None:
    one, other = await books.account(), await books.account()
    for account_id, name in ((one.id, "one"), (other.id, "other"), (None, "operators")):
        await add(targets, account_id, name)
    await notices.tell(Kind.SOFT_CAP, one.id, CAP)
    await notices.tell(Kind.DISPUTE, one.id, DISPUTE)
    await notices.tell(Kind.RELEASED, other.id, {"reference": "r", "subject": "the account", "reason": "fine"})

    reached = {
        each.kind: [delivery["target"] for delivery in each.deliveries] for each in await notices.listing(count=9)
    }

    assert reached["soft_cap"] == ["one"]
    assert reached["dispute"] == ["operators"]
    assert sorted(reached["released"]) == ["operators", "other"]


async def test_a_delivery_is_claimed_by_one_and_due_again_when_that_one_dies(
    books: Books, notices: Notices, targets: NoticeTargets
) -> None:
    await add(targets, None, "operators")
    await notices.tell(Kind.DISPUTE, None, DISPUTE)

    claims = await asyncio.gather(*(notices.claim(10, 60.0) for _ in range(5)))
    assert [due.attempts for claimed in claims for due in claimed] == [1]

    await books.pool.execute("UPDATE notice_delivery SET due_at = now()")
    assert [due.attempts for due in await notices.claim(10, 60.0)] == [2]


async def test_what_is_given_up_is_tried_again_on_request(
    books: Books, notices: Notices, targets: NoticeTargets
) -> None:
    await add(targets, None, "operators")
    await notices.tell(Kind.DISPUTE, None, DISPUTE)
    [due] = await notices.claim(10, 60.0)
    await notices.finish(due.id, "dead", error="answered 500", took_ms=3)
    assert (await notices.claim(10, 60.0), await notices.counts()) == ([], {"dead": 1})

    assert await notices.retry() == 1

    [again] = await notices.claim(10, 60.0)
    await notices.finish(again.id, "sent", error="", took_ms=2)
    log = await books.pool.fetch("SELECT error FROM notice_attempt ORDER BY at")
    assert ([row["error"] for row in log], await notices.counts()) == (["answered 500", ""], {})


async def test_a_removed_target_keeps_no_secret_and_gets_nothing_more(
    books: Books, notices: Notices, targets: NoticeTargets
) -> None:
    target_id = await add(targets, None, "operators")
    await notices.tell(Kind.DISPUTE, None, DISPUTE)
    await targets.remove(target_id, ANN)

    [due] = await notices.claim(10, 60.0)
    assert (due.is_wanted, due.url, due.secret) == (False, "", "")
    await notices.tell(Kind.DISPUTE, None, DISPUTE)
    assert await books.count("notice_delivery") == 1
    with pytest.raises(NoticeError, match="no target"):
        await targets.remove(target_id, ANN)


async def test_who_is_told_is_in_the_audit_log_without_what_is_secret(books: Books, targets: NoticeTargets) -> None:
    target_id = await add(targets, None, "operators")
    await targets.remove(target_id, ANN)
    lines = await AuditLog(books.pool).page(subject=target_id, count=9)
    told = {"account": None, "kind": "webhook", "url": "operators"}
    assert [(line.action, line.author) for line in lines] == [
        ("notice_target.remove", "ann"),
        ("notice_target.add", "ann"),
    ]
    assert [(line.before, line.after) for line in lines] == [(told, None), (None, told)]


async def test_fields_that_no_template_could_fill_in_are_a_bug(notices: Notices) -> None:
    with pytest.raises(ValueError, match="soft_cap"):
        await notices.tell(Kind.SOFT_CAP, None, {"name": "day"})
