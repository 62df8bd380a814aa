"""The watcher: unusual spending is in review within a step, told of once, and served again when it is released."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from msgspec import structs

from gateway.adapters.postgres.alerts import Alerts
from gateway.adapters.postgres.audit_log import AuditLog, ChangeRefused, Signature
from gateway.adapters.postgres.identities import token_key_id
from gateway.adapters.postgres.notices import Listed, Notices
from gateway.adapters.postgres.payment_causes import PaymentCauses
from gateway.adapters.postgres.reviews import ReviewError, Reviews
from gateway.adapters.postgres.spending import SpendingBook
from gateway.adapters.stripe.objects import Cause
from gateway.core.access.roles import Role
from gateway.core.guard.alerts import Wishes
from gateway.core.guard.anomaly import Bound, Rule, Rules, Subject, Verdict, Width
from gateway.core.guard.notices import load_templates
from gateway.resources import shipped
from gateway.workers.watcher import Mode, Watcher
from tests.books import Books, open_books
from tests.spending import spend, spend_hourly

OPERATOR = Signature("olga", "the customer has confirmed it")


class Desk:
    """An account with two keys and a past of 100 µcr an hour by the first, and what watches it."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.notices = Notices(books.pool, load_templates((shipped("config") / "notices.toml").read_text()))
        self.reviews = Reviews(books.pool, self.notices, AuditLog(books.pool))
        self.alerts = Alerts(books.pool, self.notices, AuditLog(books.pool), Wishes(below=0, days=0))
        self.account_id = ""
        self.keys: list[str] = []

    async def open(self) -> None:
        self.account_id = (await self.books.account()).id
        self.keys = [(await self.books.keys.issue(self.account_id))[1] for _ in range(2)]
        for key_id in self.keys:
            await spend_hourly(self.books.pool, self.account_id, key_id, 100, range(4, 12))

    def watcher(self, *, mode: Mode = "review", width: Width = "account") -> Watcher:
        rules = Rules(
            burst=500_000, burst_minutes=10, hour=Bound(5, 100), day=Bound(3, 1_000_000), known_min=3, width=width
        )
        return Watcher(SpendingBook(self.books.pool), self.reviews, self.alerts, mode=mode, rules=rules)

    async def spend(self, amount: int, key: int = 0) -> None:
        await spend(self.books.pool, self.account_id, self.keys[key], amount)

    async def status(self) -> str:
        return (await self.books.accounts.find(self.account_id)).status

    async def told(self) -> list[Listed]:
        return await self.notices.listing(count=100)


@pytest.fixture
async def desk(database_url: str, redis_url: str) -> AsyncIterator[Desk]:
    async with open_books(database_url, redis_url) as books:
        made = Desk(books)
        await made.open()
        yield made


async def watch(watcher: Watcher) -> None:
    while await watcher.step():
        pass


async def test_usual_spending_disturbs_nobody(desk: Desk) -> None:
    await desk.spend(1000)  # five times what both keys usually spend
    await watch(desk.watcher())

    assert (await desk.status(), await desk.reviews.listing(count=9), await desk.told()) == ("active", [], [])


async def test_an_account_that_spends_five_times_the_usual_is_in_review_and_that_is_told_once(desk: Desk) -> None:
    watcher = desk.watcher()
    await watch(watcher)
    for _ in range(3):
        await desk.spend(1001)
        await watch(watcher)

    [review] = await desk.reviews.listing(count=9)
    [notice] = await desk.told()
    assert (await desk.status(), review.subject, review.status) == ("in_review", "the account", "in_review")
    assert review.figures["rule"] == "hour"
    assert (notice.kind, notice.fields["reference"]) == ("in_review", review.reference)


async def test_by_policy_the_key_alone_is_in_review_and_its_account_is_served(desk: Desk) -> None:
    watcher = desk.watcher(width="key")
    for _ in range(3):
        await desk.spend(1001)
        await watch(watcher)

    [review] = await desk.reviews.listing(count=9)
    assert (review.key_id, review.figures["spent"], await desk.status()) == (desk.keys[0], 1001, "active")


async def test_who_spends_with_a_token_is_in_review_as_a_member_for_there_is_no_key(desk: Desk) -> None:
    member = await desk.books.members.create(desk.account_id, "ada@example.com", Role.MEMBER)
    watcher = desk.watcher(width="key")
    for _ in range(2):
        await spend(desk.books.pool, desk.account_id, token_key_id(member.id), 500_001)
        await watch(watcher)

    [review] = await desk.reviews.listing(count=9)
    assert (review.subject, review.key_id, review.figures["rule"]) == ("member ada@example.com", None, Rule.BURST)
    assert await desk.status() == "active"


async def test_what_a_trusted_service_reports_with_its_own_key_puts_the_payer_in_review(desk: Desk) -> None:
    _, reporting = await desk.books.keys.issue((await desk.books.account()).id)
    await spend(desk.books.pool, desk.account_id, reporting, 500_001)
    await watch(desk.watcher(width="key"))

    [review] = await desk.reviews.listing(count=9)
    assert (review.subject, review.key_id, await desk.status()) == ("the account", None, "in_review")


async def test_the_other_keys_of_an_account_are_judged_on_their_own(desk: Desk) -> None:
    watcher = desk.watcher(width="key")
    await desk.spend(1001)
    await watch(watcher)
    await desk.spend(501, key=1)
    await watch(watcher)

    assert {each.key_id for each in await desk.reviews.listing(count=9)} == set(desk.keys)


async def test_what_was_released_is_not_put_in_review_again_for_the_same_spending(desk: Desk) -> None:
    watcher = desk.watcher()
    await desk.spend(5000)
    await watch(watcher)
    [review] = await desk.reviews.listing(count=9)

    released = await desk.reviews.release(review.reference, OPERATOR)
    await desk.spend(10)
    await watch(watcher)

    assert (released.status, released.closed_by, await desk.status()) == ("active", "olga", "active")
    assert [each.kind for each in await desk.told()] == ["released", "in_review"]
    [line] = await AuditLog(desk.books.pool).page(author="olga", count=9)
    assert (line.author, line.action, line.reason) == ("olga", "release review", OPERATOR.reason)


async def test_what_goes_on_after_a_release_is_put_in_review_again(desk: Desk) -> None:
    watcher = desk.watcher()
    await desk.spend(5000)
    await watch(watcher)
    [review] = await desk.reviews.listing(count=9)
    await desk.reviews.release(review.reference, OPERATOR)
    await desk.books.pool.execute("UPDATE account_review SET closed_at = closed_at - interval '2 minutes'")

    await desk.spend(5000)
    await watch(watcher)

    assert await desk.status() == "in_review"


async def test_a_review_is_released_once_with_a_reason(desk: Desk) -> None:
    await desk.spend(5000)
    await watch(desk.watcher())
    [review] = await desk.reviews.listing(count=9)

    with pytest.raises(ChangeRefused):
        await desk.reviews.release(review.reference, Signature("olga", " "))
    await desk.reviews.release(review.reference, OPERATOR)
    with pytest.raises(ReviewError, match="over already"):
        await desk.reviews.release(review.reference, OPERATOR)
    with pytest.raises(ReviewError, match="no review"):
        await desk.reviews.release("rev_unknown", OPERATOR)


async def test_an_account_is_served_again_once_the_last_of_its_reviews_is_over(desk: Desk) -> None:
    causes = PaymentCauses(desk.books.pool, desk.notices)
    dispute = Cause("du_1", "pi_1", True, "dispute", "fraudulent", 500)
    await desk.spend(5000)
    await watch(desk.watcher())
    await causes.follow(desk.account_id, dispute, reviews=True)
    [unusual] = [each for each in await desk.reviews.listing(count=9) if each.cause != "du_1"]

    assert (await desk.reviews.release(unusual.reference, OPERATOR)).status == "in_review"
    await causes.follow(desk.account_id, structs.replace(dispute, is_open=False), reviews=True)
    assert await desk.status() == "active"


async def test_an_operator_who_suspended_it_meanwhile_is_not_overruled(desk: Desk) -> None:
    await desk.spend(5000)
    await watch(desk.watcher())
    [review] = await desk.reviews.listing(count=9)
    await desk.books.account_desk.set_status(desk.account_id, "suspended", OPERATOR)

    assert (await desk.reviews.release(review.reference, OPERATOR)).status == "suspended"


async def test_operators_who_only_want_to_know_are_told_and_nobody_is_stopped(desk: Desk) -> None:
    watcher = desk.watcher(mode="notify")
    for _ in range(3):
        await desk.spend(5000)
        await watch(watcher)

    assert (await desk.status(), [each.kind for each in await desk.told()]) == ("active", ["unusual"])


async def test_turned_off_it_tells_nothing(desk: Desk) -> None:
    await desk.spend(10**12)
    await watch(desk.watcher(mode="off"))

    assert (await desk.status(), await desk.told()) == ("active", [])


async def test_who_spends_is_warned_of_what_is_left(desk: Desk) -> None:
    await desk.alerts.set(desk.account_id, OPERATOR, below=10, days=0)
    await desk.spend(1)
    await watch(desk.watcher(mode="off"))

    assert [each.kind for each in await desk.told()] == ["low_balance"]


async def test_what_was_rolled_up_on_the_way_to_the_present_is_judged_there(desk: Desk) -> None:
    await spend(desk.books.pool, desk.account_id, desk.keys[0], 5000, timedelta(minutes=40))
    await watch(desk.watcher())  # in steps of an hour from the first spending on, so these 40 minutes are not the last

    assert await desk.status() == "in_review"


async def test_what_another_process_rolled_up_before_it_was_killed_is_judged_by_the_next(desk: Desk) -> None:
    await desk.spend(5000)
    killed = SpendingBook(desk.books.pool)
    while (await killed.roll()).is_behind:
        pass
    await watch(desk.watcher())

    assert await desk.status() == "in_review"


async def test_a_burst_is_judged_without_any_past(desk: Desk) -> None:
    account = await desk.books.account()
    _, key_id = await desk.books.keys.issue(account.id)
    await spend(desk.books.pool, account.id, key_id, 500_001, timedelta(minutes=5))
    await watch(desk.watcher())

    [review] = await desk.reviews.listing(count=9)
    assert (review.account_id, review.figures["rule"]) == (account.id, "burst")


async def test_however_many_see_it_at_once_there_is_one_review_and_one_notice(desk: Desk) -> None:
    verdict = Verdict(Rule.HOUR, 5000, 1000, 200, 60)
    opened = await asyncio.gather(*(desk.reviews.open(Subject(desk.account_id), verdict) for _ in range(5)))

    assert (len([each for each in opened if each]), len(await desk.told())) == (1, 1)
