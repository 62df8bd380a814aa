"""Sending: signed, never to a private address that is not allowed, never after a redirect, and bounded in time."""

from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.notify import NotSent, Sender, UnusableTarget, describe, is_reachable
from gateway.core.guard.notices import Words
from tests.documented import is_from_tollgate
from tests.patience import PATIENCE_S
from tests.receiver import Receiver, receiving

LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    made = Sender(timeout_s=PATIENCE_S, private_networks=LOOPBACK, now_s=lambda: 1000)
    yield made
    await made.close()


@pytest.fixture
async def stranger() -> AsyncIterator[Sender]:
    """A sender that may reach public addresses only."""
    made = Sender(timeout_s=PATIENCE_S, private_networks=(), now_s=lambda: 1000)
    yield made
    await made.close()


async def test_a_webhook_comes_once_signed_and_named(sender: Sender, receiver: Receiver) -> None:
    await sender.webhook(receiver.url, "secret", b'{"a":1}', "notice-1")

    [came] = receiver.came
    assert is_from_tollgate(came.headers["x-tollgate-signature"], came.body, "secret", now_s=1000)
    assert (came.body, came.headers["x-tollgate-notice"]) == (b'{"a":1}', "notice-1")


@pytest.mark.parametrize("status", [301, 307, 400, 500])
async def test_any_answer_but_success_is_a_failure_and_no_redirect_is_followed(
    sender: Sender, receiver: Receiver, status: int
) -> None:
    receiver.status, receiver.location = status, receiver.url

    with pytest.raises(NotSent, match=str(status)):
        await sender.webhook(receiver.url, "secret", b"{}", "notice-1")
    assert len(receiver.came) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0"])
async def test_no_way_to_write_a_private_address_reaches_it(stranger: Sender, receiver: Receiver, host: str) -> None:
    with pytest.raises(NotSent):
        await stranger.webhook(receiver.url.replace("127.0.0.1", host), "secret", b"{}", "notice-1")
    assert receiver.came == []


@pytest.mark.parametrize(
    "host",
    [
        *(
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.0.1",
            "224.0.0.1",
        ),
        *("::", "::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:192.168.0.1", "64:ff9b::a00:1", "2002:a00:1::"),
        *("2001:0:4136:e378:8000:63bf:f5ff:fffe", "255.255.255.255", "240.0.0.1"),
    ],
)
def test_private_addresses_are_known_in_all_their_clothes(host: str) -> None:
    assert not is_reachable(host, ())


@given(st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_a_private_network_is_reached_if_it_is_allowed(address: object) -> None:
    assert is_reachable(str(address), (ip_network("10.0.0.0/8"),))
    assert not is_reachable(str(address), LOOPBACK)


async def test_a_receiver_that_does_not_answer_costs_a_bounded_time(receiver: Receiver) -> None:
    receiver.is_silent = True
    sender = Sender(timeout_s=0.1, private_networks=LOOPBACK, now_s=lambda: 1000)
    try:
        with pytest.raises(NotSent, match="no answer within"):
            await sender.webhook(receiver.url, "secret", b"{}", "notice-1")
    finally:
        await sender.close()


async def test_apprise_sends_the_words(sender: Sender, receiver: Receiver) -> None:
    await sender.apprise(receiver.url.replace("http://", "json://"), Words("the subject", "the text"))

    [came] = receiver.came
    assert b"the subject" in came.body
    assert b"the text" in came.body


async def test_what_apprise_complains_of_is_told_without_the_secret(sender: Sender, receiver: Receiver) -> None:
    receiver.status = 500
    url = receiver.url.replace("http://", "json://someone:hunter2222@")

    with pytest.raises(NotSent) as failure:
        await sender.apprise(url, Words("the subject", "the text"))
    assert "500" in str(failure.value)
    assert "hunter2222" not in str(failure.value)


async def test_an_answer_that_apprise_is_not_made_for_is_a_failure_like_any_other(
    sender: Sender, receiver: Receiver
) -> None:
    receiver.answer = b"[]"
    url = receiver.url.replace("http://", "emby://someone:hunter2222@")

    with pytest.raises(NotSent, match="AttributeError"):
        await sender.apprise(url, Words("the subject", "the text"))


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "ftp://example.com", "https://", "https://u:p@example.com", "https://a.b/#c", "http://[::"],
)
def test_what_cannot_be_a_target_is_refused(url: str) -> None:
    with pytest.raises(UnusableTarget):
        describe(url)


def test_a_target_is_shown_without_its_secrets() -> None:
    assert describe("https://example.com:8443/hook/s3cret?key=s3cret") == ("webhook", "https://example.com:8443/…")
    assert describe("mailtos://me:s3cret@example.com") == ("apprise", "mailtos://… (E-Mail)")
