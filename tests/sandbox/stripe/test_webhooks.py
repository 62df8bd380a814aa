"""Deliveries: signed as the SDK verifies, retried until acknowledged, and disturbed to order."""

import pytest
import stripe
from stripe import StripeClient

from gateway.sandbox.stripe import SandboxStripeSettings, SimulatedStripe
from tests.sandbox.stripe.parties import SECRET, Receiver, charge, connected


async def listen(simulated: SimulatedStripe, receiver: Receiver, *events: str) -> str:
    made = simulated.order(
        "webhook_endpoints/create", url=receiver.url, secret=SECRET, enabled_events=list(events) or ["*"]
    )
    return str(made["id"])


async def test_every_event_arrives_once_signed_and_in_order(
    client: StripeClient, simulated: SimulatedStripe, receiver: Receiver
) -> None:
    await listen(simulated, receiver)
    intent = await charge(client, "card_visa", metadata={"purchase": "1"})
    events = await receiver.until(3)
    await simulated.idle()
    assert sorted(event.type for event in events) == [
        "charge.succeeded",
        "payment_intent.created",
        "payment_intent.succeeded",
    ]
    paid = next(event for event in events if event.type == "payment_intent.succeeded")
    assert isinstance(paid.data.object, stripe.PaymentIntent)
    assert (paid.data.object.id, paid.data.object.metadata.to_dict()) == (intent.id, {"purchase": "1"})
    assert paid.api_version == stripe.api_version
    assert paid.request is not None
    assert paid.request.id is not None


async def test_a_failure_is_delivered_again_and_success_is_told(
    client: StripeClient, simulated: SimulatedStripe, receiver: Receiver
) -> None:
    await listen(simulated, receiver)
    receiver.answers = [500, 503]
    await client.v1.customers.create_async()
    events = await receiver.until(3)
    await simulated.idle()
    assert len({event.id for event in events}) == 1
    assert [attempt.status for attempt in simulated.attempts] == [500, 503, 200]
    assert (await client.v1.events.list_async({"delivery_success": False})).data == []
    assert (await client.v1.events.retrieve_async(events[0].id)).pending_webhooks == 0


async def test_what_was_given_up_is_listed_as_undelivered(
    client: StripeClient, simulated: SimulatedStripe, receiver: Receiver
) -> None:
    await listen(simulated, receiver)
    receiver.answers = [500, 500, 500]
    await client.v1.customers.create_async()
    await receiver.until(3)
    await simulated.idle()
    await client.v1.products.create_async({"name": "Starter"})
    await simulated.idle()
    failed = await client.v1.events.list_async({"delivery_success": False, "types": ["customer.created"]})
    delivered = await client.v1.events.list_async({"delivery_success": True})
    assert [event.type for event in failed.data] == ["customer.created"]
    assert [event.type for event in delivered.data] == ["product.created"]
    simulated.send_again(failed.data[0].id)
    await simulated.idle()
    assert (await client.v1.events.list_async({"delivery_success": False})).data == []


async def test_an_endpoint_hears_what_it_listens_for_until_it_is_gone(
    client: StripeClient, simulated: SimulatedStripe, receiver: Receiver
) -> None:
    made = await client.v1.webhook_endpoints.create_async(
        {"url": receiver.url, "enabled_events": ["customer.created"], "api_version": "2026-10-28.endive"}
    )
    assert made.secret is not None
    receiver.secret = made.secret
    await client.v1.products.create_async({"name": "Starter"})
    await client.v1.customers.create_async()
    await receiver.until(1)
    await simulated.idle()
    assert [event.type for event in receiver.events] == ["customer.created"]
    await client.v1.webhook_endpoints.update_async(made.id, {"disabled": True})
    await client.v1.customers.create_async()
    await client.v1.webhook_endpoints.delete_async(made.id)
    await client.v1.customers.create_async()
    await simulated.idle()
    assert len(receiver.events) == 1
    with pytest.raises(stripe.InvalidRequestError, match="loopback"):
        await client.v1.webhook_endpoints.create_async({"url": "https://example.com/", "enabled_events": ["*"]})


async def test_while_a_secret_is_rolled_both_verify(
    client: StripeClient, simulated: SimulatedStripe, receiver: Receiver
) -> None:
    endpoint_id = await listen(simulated, receiver)
    new = simulated.order("webhook_endpoints/roll", endpoint_id)["secret"]
    for secret in (SECRET, new):
        receiver.secret = secret
        await client.v1.customers.create_async()
        await simulated.idle()
    assert (len(receiver.events), receiver.forged) == (2, 0)


async def test_all_may_be_sent_twice(client: StripeClient, simulated: SimulatedStripe, receiver: Receiver) -> None:
    await listen(simulated, receiver)
    simulated.set_scenario(duplicate=1.0)
    await client.v1.customers.create_async()
    await receiver.until(2)
    await simulated.idle()
    assert len({event.id for event in receiver.events}) == 1


async def test_the_order_may_be_any(client: StripeClient, simulated: SimulatedStripe, receiver: Receiver) -> None:
    await listen(simulated, receiver)
    simulated.set_scenario(reorder_s=0.2)
    made = [(await client.v1.customers.create_async()).id for _ in range(12)]
    await receiver.until(12)
    arrived = [event.data.object["id"] for event in receiver.events]
    assert sorted(arrived) == sorted(made)
    assert arrived != made


async def test_a_dropped_event_is_undelivered_and_a_suppressed_one_unknown(
    client: StripeClient, simulated: SimulatedStripe, receiver: Receiver
) -> None:
    await listen(simulated, receiver)
    simulated.set_scenario(drop=1.0)
    await client.v1.customers.create_async()
    simulated.set_scenario(suppress=1.0)
    await client.v1.products.create_async({"name": "Starter"})
    await simulated.idle()
    assert receiver.events == []
    listed = await client.v1.events.list_async({"delivery_success": False})
    assert [event.type for event in listed.data] == ["customer.created"]
    assert len((await client.v1.events.list_async()).data) == 1


async def test_a_lost_acknowledgment_and_a_forgery_reach_the_endpoint(
    client: StripeClient, simulated: SimulatedStripe, receiver: Receiver
) -> None:
    await listen(simulated, receiver)
    simulated.set_scenario(lose_reply=1.0, bad_signature=1.0)
    await client.v1.customers.create_async()
    await receiver.until(2)
    await simulated.idle()
    assert (len(receiver.events), receiver.forged) == (2, 1)


async def test_an_endpoint_that_is_away_stays_pending() -> None:
    receiver = Receiver()
    async with receiver:
        pass
    settings = SandboxStripeSettings(seed=1, delivery_retries_s=(60.0,))
    async with SimulatedStripe(settings) as simulated:
        simulated.order("webhook_endpoints/create", url=receiver.url, secret=SECRET)
        simulated.order("webhook_endpoints/create", url=receiver.url.replace("stripe", "other"), secret=SECRET)
        async with connected(simulated.url) as other:
            await other.v1.customers.create_async()
            pending = (await other.v1.events.list_async()).data[0].pending_webhooks
    assert pending == 2
