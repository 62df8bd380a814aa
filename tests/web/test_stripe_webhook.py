"""Stripe's webhook: only what Stripe signed now is taken, and what is answered with 200 is stored."""

import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
import stripe

from gateway.sandbox.openai import SimulatedOpenAI
from tests.proxy.stack import Running
from tests.sandbox.stripe.parties import SECRET
from tests.shop import Shop, open_shop

NEWER = "whsec_the_newer_one"


@pytest.fixture
async def shop(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Shop]:
    async with open_shop(running, openai, secrets=f"{SECRET}, {NEWER}") as shop:
        yield shop


def event(**changes: Any) -> bytes:
    about = {"id": "pi_1", "object": "payment_intent"}
    told = {"id": "evt_1", "type": "payment_intent.succeeded", "created": 1_800_000_000, "livemode": False}
    return msgspec.json.encode(told | {"data": {"object": about}} | changes)


def signed(body: bytes, secret: str = SECRET, at_s: float | None = None) -> str:
    when = int(time.time() if at_s is None else at_s)
    header: str = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, when)
    return header


async def send(shop: Shop, body: bytes, signature: str) -> int:
    async with shop.browser.post(
        f"{shop.url}/webhooks/stripe", data=body, headers={"Stripe-Signature": signature}
    ) as answer:
        return answer.status


@pytest.mark.parametrize("secret", [SECRET, NEWER])
async def test_both_secrets_sign_while_one_is_replaced(shop: Shop, secret: str) -> None:
    assert await send(shop, event(), signed(event(), secret)) == 200
    assert await shop.states() == {"received": 1}


@pytest.mark.parametrize(
    ("secret", "ahead_s"), [("whsec_of_a_forger", 0), (SECRET, -400), (SECRET, 400), (SECRET, 10**9)]
)
async def test_a_forged_an_old_and_a_future_signature_are_refused(shop: Shop, secret: str, ahead_s: int) -> None:
    assert await send(shop, event(), signed(event(), secret, time.time() + ahead_s)) == 400
    assert await shop.states() == {}


@pytest.mark.parametrize("signature", ["", "t=1", "v1=ff", "t=x,v1=ff", "t=1,v1=ff,t=2", "\xff", "t=1,v1=\xff"])
async def test_what_is_no_signature_is_refused(shop: Shop, signature: str) -> None:
    assert await send(shop, event(), signature) == 400


async def test_a_changed_byte_is_noticed(shop: Shop) -> None:
    assert await send(shop, event(livemode=True), signed(event())) == 400


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"id": 1}'])
async def test_what_is_signed_and_no_event_is_refused(shop: Shop, body: bytes) -> None:
    assert await send(shop, body, signed(body)) == 400


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"id": "evt_\0"}, "$.id"),
        ({"id": "e" * 5000}, "$.id"),
        ({"type": "charge\0.updated"}, "$.type"),
        ({"created": 2**63 - 1}, "$.created"),
        ({"created": -(2**63)}, "$.created"),
        ({"data": {"object": {"id": "pi_\0"}}}, "$.data.object.id"),
        ({"data": {"object": {"payment_intent": "pi_\0"}}}, "$.data.object.payment_intent"),
        ({"data": {"object": {"payment_intent": {"id": "pi_\0"}}}}, "$.data.object.payment_intent.id"),
        ({"data": {"object": {"payment_intent": 5}}}, "$.data.object.payment_intent"),
    ],
)
async def test_what_is_signed_and_can_never_be_stored_is_refused_by_name(
    shop: Shop, changes: dict[str, Any], where: str
) -> None:
    body = event(**changes)
    headers = {"Stripe-Signature": signed(body)}
    async with shop.browser.post(f"{shop.url}/webhooks/stripe", data=body, headers=headers) as answer:
        told = await answer.json()
    assert (answer.status, f"`{where}`" in told["error"]["message"]) == (400, True), told
    assert await shop.states() == {}


async def test_the_event_is_kept_as_it_came(shop: Shop) -> None:
    body = event().replace(b'"id"', b'\n "id"')
    assert await send(shop, body, signed(body)) == 200
    kept = await shop.parts.inbox.show("evt_1")
    assert kept is not None
    assert kept["body"] == body
    assert signed(body)[:5] == msgspec.json.decode(kept["headers"])["Stripe-Signature"][:5]


async def test_a_repeated_event_is_answered_and_kept_once(shop: Shop) -> None:
    for _ in range(3):
        assert await send(shop, event(), signed(event())) == 200
    assert await shop.states() == {"received": 1}


async def test_an_event_that_cannot_be_stored_is_not_acknowledged(shop: Shop) -> None:
    owner = await asyncpg.connect(shop.stack.config.database_url)
    await owner.execute("ALTER TABLE stripe_event RENAME TO away")
    refused = await send(shop, event(), signed(event()))
    await owner.execute("ALTER TABLE away RENAME TO stripe_event")
    await owner.close()
    assert (refused, await send(shop, event(), signed(event()))) == (500, 200)
