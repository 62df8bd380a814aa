"""The notifier: every delivery on its own, tried again when it fails, given up in the end, never lost."""

from collections.abc import AsyncIterator
from ipaddress import ip_network

import msgspec
import pytest

from gateway.adapters.notify import Sender
from gateway.adapters.postgres.audit_log import AuditLog, Signature
from gateway.adapters.postgres.notice_targets import NoticeTargets
from gateway.adapters.postgres.notices import Notices
from gateway.core.guard.notices import Fields, Kind, load_templates
from gateway.resources import shipped
from gateway.workers.notifier import Notifier
from tests.books import Books
from tests.documented import is_from_tollgate
from tests.patience import PATIENCE_S
from tests.receiver import Receiver, receiving

DISPUTE: Fields = {"payment": "pi_1", "amount": "$5.00", "reason": "fraudulent", "reference": "du_1"}
TEMPLATES = load_templates((shipped("config") / "notices.toml").read_text())

ANN = Signature("ann", "asked on the phone")


@pytest.fixture
def notices(books: Books) -> Notices:
    return Notices(books.pool, TEMPLATES)


@pytest.fixture
def targets(books: Books) -> NoticeTargets:
    return NoticeTargets(books.pool, AuditLog(books.pool))


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


@pytest.fixture
async def notifier(notices: Notices) -> AsyncIterator[Notifier]:
    sender = Sender(timeout_s=PATIENCE_S, private_networks=(ip_network("127.0.0.0/8"),), now_s=lambda: 1000)
    yield Notifier(
        notices,
        sender,
        TEMPLATES,
        at_once_max=8,
        attempts_max=3,
        timeout_s=PATIENCE_S,
        retry_first_s=5,
        retry_longest_s=60,
    )
    await sender.close()


async def test_a_notice_arrives_with_its_words_its_fields_and_a_signature(
    books: Books, notices: Notices, targets: NoticeTargets, notifier: Notifier, receiver: Receiver
) -> None:
    account = await books.account()
    await targets.add(None, "webhook", receiver.url, ANN, secret="whsec", shown="receiver")
    await notices.tell(Kind.DISPUTE, account.id, DISPUTE)

    assert await notifier.step() == 1

    [came] = receiver.came
    told = msgspec.json.decode(came.body)
    assert is_from_tollgate(came.headers["x-tollgate-signature"], came.body, "whsec", now_s=1000)
    assert told["id"] == came.headers["x-tollgate-notice"]
    assert (told["kind"], told["account"], told["fields"]) == ("dispute", account.id, DISPUTE)
    assert told["subject"] == f"{account.name}: payment pi_1 is disputed"
    assert (await notifier.step(), await notices.counts()) == (0, {})


async def test_a_failure_is_tried_again_later_and_does_not_repeat_what_arrived(
    books: Books, notices: Notices, targets: NoticeTargets, notifier: Notifier, receiver: Receiver
) -> None:
    async with receiving() as other:
        for each in (receiver, other):
            await targets.add(None, "webhook", each.url, ANN, secret="s", shown="receiver")
        receiver.status = 503
        await notices.tell(Kind.DISPUTE, None, DISPUTE)
        assert (await notifier.step(), await notifier.step()) == (2, 0)
        assert await notices.counts() == {"retrying": 1}

        receiver.status = 200
        await books.pool.execute("UPDATE notice_delivery SET due_at = now() WHERE state = 'retrying'")
        assert await notifier.step() == 1
        assert (len(receiver.came), len(other.came), await notices.counts()) == (2, 1, {})


async def test_what_never_arrives_is_given_up_with_its_reason(
    books: Books, notices: Notices, targets: NoticeTargets, notifier: Notifier, receiver: Receiver
) -> None:
    receiver.status = 500
    await targets.add(None, "webhook", receiver.url, ANN, secret="s", shown="receiver")
    await notices.tell(Kind.DISPUTE, None, DISPUTE)

    for _ in range(4):
        await notifier.step()
        await books.pool.execute("UPDATE notice_delivery SET due_at = now()")

    [listed] = await notices.listing(count=9)
    assert len(receiver.came) == 3
    assert listed.deliveries == [{"target": "receiver", "state": "dead", "attempts": 3, "error": "answered 500"}]


@pytest.mark.parametrize("kind", ["told_by_a_later_version", "mismatch"])
async def test_a_notice_that_another_version_raised_keeps_no_other_from_being_sent(
    books: Books, notices: Notices, targets: NoticeTargets, notifier: Notifier, receiver: Receiver, kind: str
) -> None:
    await targets.add(None, "webhook", receiver.url, ANN, secret="s", shown="receiver")
    await books.pool.execute(
        """
        WITH raised AS (INSERT INTO notice (kind, dedupe_key, fields) VALUES ($1, '', '{}') RETURNING id)
        INSERT INTO notice_delivery (notice_id, target_id) SELECT raised.id, notice_target.id FROM raised, notice_target
        """,
        kind,
    )
    await notices.tell(Kind.DISPUTE, None, DISPUTE)

    assert await notifier.step() == 2

    assert [msgspec.json.decode(each.body)["kind"] for each in receiver.came] == ["dispute"]
    [listed] = await notices.listing(kind=kind, count=9)
    assert listed.deliveries[0]["state"] == "retrying"
    assert "this version has no words for it" in listed.deliveries[0]["error"]


async def test_a_test_reaches_the_target_it_is_for_only(
    notices: Notices, targets: NoticeTargets, notifier: Notifier, receiver: Receiver
) -> None:
    async with receiving() as other:
        wanted = await targets.add(None, "webhook", receiver.url, ANN, secret="s", shown="receiver")
        await targets.add(None, "webhook", other.url, ANN, secret="s", shown="other")
        await notices.test(wanted, "noon")

        assert await notifier.step() == 1
        assert (len(receiver.came), len(other.came)) == (1, 0)
