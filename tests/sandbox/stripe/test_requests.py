"""How a call is asked and answered: keys, versions, parameters, pages, expansion, idempotency, and faults to order."""

import asyncio
from typing import Any

import aiohttp
import pytest
import stripe
from stripe import StripeClient

from gateway.sandbox.stripe import API_VERSION, SandboxStripeSettings, SimulatedStripe
from tests.sandbox.stripe.parties import KEY, charge, connected, sell, types_of


async def raw(url: str, method: str = "GET", data: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as browser:
        given = {"Authorization": f"Bearer {KEY}", **{name.replace("_", "-"): text for name, text in headers.items()}}
        async with browser.request(method, url, data=data, headers=given) as answer:
            return answer.status, await answer.json()


@pytest.mark.parametrize("key", ["sk_live_0123456789abcdef", "pk_test_0123456789abcdef", "nonsense"])
async def test_only_a_secret_test_key_is_let_in(simulated: SimulatedStripe, key: str) -> None:
    async with connected(simulated.url, key) as stranger:
        with pytest.raises(stripe.AuthenticationError) as refused:
            await stranger.v1.customers.list_async()
        assert key not in str(refused.value)


async def test_another_version_of_the_api_is_refused(simulated: SimulatedStripe) -> None:
    status, body = await raw(f"{simulated.url}/v1/customers", Stripe_Version="2019-01-01")
    assert (status, API_VERSION in body["error"]["message"]) == (400, True)


async def test_what_does_not_exist_is_resource_missing(client: StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as path:
        await client.v1.customers.retrieve_async("cus_none")
    with pytest.raises(stripe.InvalidRequestError) as parameter:
        await client.v1.refunds.create_async({"payment_intent": "pi_none"})
    assert (path.value.http_status, path.value.code, path.value.param) == (404, "resource_missing", "id")
    assert (parameter.value.http_status, parameter.value.param) == (400, "payment_intent")
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        await client.v1.subscriptions.list_async()


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"amount": 500, "currency": "usd", "color": "red"}, "parameter_unknown", "color"),
        ({"amount": 500, "currency": "usd", "shipping": {"colour": "x"}}, "parameter_unknown", "shipping[colour]"),
        ({"currency": "usd"}, "parameter_missing", "amount"),
        ({"amount": "many", "currency": "usd"}, "parameter_invalid_integer", "amount"),
        ({"amount": 500, "currency": "usd", "customer": ""}, "parameter_invalid_empty", "customer"),
        ({"amount": 500, "currency": "usd", "capture_method": "never"}, None, "capture_method"),
        ({"amount": 500, "currency": "usd", "metadata": "x"}, None, "metadata"),
        ({"amount": [500], "currency": "usd"}, None, "amount"),
        ({"amount": 500, "currency": "usd", "transfer_group": "x"}, None, "transfer_group"),
    ],
)
async def test_a_parameter_that_stripe_would_refuse_is_refused(
    client: StripeClient, params: Any, code: str | None, param: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.payment_intents.create_async(params)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert await types_of(client) == []


async def test_pages_go_both_ways_and_meet(client: StripeClient) -> None:
    made = [(await client.v1.customers.create_async({"email": f"{n}@example.com"})).id for n in range(7)]
    newest = list(reversed(made))
    first = await client.v1.customers.list_async({"limit": 3})
    assert ([each.id for each in first.data], first.has_more) == (newest[:3], True)
    older = await client.v1.customers.list_async({"limit": 4, "starting_after": newest[2]})
    assert ([each.id for each in older.data], older.has_more) == (newest[3:], False)
    back = await client.v1.customers.list_async({"limit": 2, "ending_before": newest[3]})
    assert ([each.id for each in back.data], back.has_more) == (newest[1:3], True)
    assert [each.id async for each in first.auto_paging_iter()] == newest
    wrong: list[Any] = [{"limit": 101}, {"starting_after": "cus_none"}, {"starting_after": "a", "ending_before": "b"}]
    for params in wrong:
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.customers.list_async(params)


async def test_search_finds_by_metadata_what_is_old_enough(client: StripeClient, simulated: SimulatedStripe) -> None:
    intent = await charge(client, "card_visa", metadata={"attempt": "a-1"})
    await charge(client, "card_visa", metadata={"attempt": "a-2"})
    query = "metadata['attempt']:'a-1' AND status:'succeeded'"
    assert (await client.v1.payment_intents.search_async({"query": query})).data == []
    simulated.advance(61)
    assert [each.id for each in (await client.v1.payment_intents.search_async({"query": query})).data] == [intent.id]


async def test_metadata_is_merged_and_unset_by_empty_values(client: StripeClient) -> None:
    customer = await client.v1.customers.create_async({"metadata": {"a": "1", "b": "2", "0": "x"}})
    changed = await client.v1.customers.update_async(customer.id, {"metadata": {"b": "", "c": "3"}})
    assert changed.metadata is not None
    assert changed.metadata.to_dict() == {"a": "1", "0": "x", "c": "3"}
    event = (await client.v1.events.list_async({"type": "customer.updated"})).data[0]
    assert event.data.previous_attributes is not None
    assert event.data.previous_attributes.to_dict() == {"metadata": {"b": "2", "c": None}}


async def test_what_cannot_be_expanded_is_refused(client: StripeClient) -> None:
    for path in ("amount", "nonsense", "customer.a.b.c.d"):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await charge(client, "card_visa", expand=[path])
        assert refused.value.param == "expand"


async def test_a_key_gives_one_answer_however_often(client: StripeClient) -> None:
    params: Any = {"amount": 500, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    first = await client.v1.payment_intents.create_async(params, {"idempotency_key": "k-1"})
    again = await client.v1.payment_intents.create_async(params, {"idempotency_key": "k-1"})
    assert (first.id, first.last_response is None) == (again.id, False)
    assert again.last_response is not None
    assert again.last_response.headers is not None
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    with pytest.raises(stripe.IdempotencyError) as refused:
        await client.v1.payment_intents.create_async(params | {"amount": 501}, {"idempotency_key": "k-1"})
    assert refused.value.http_status == 400
    assert len((await client.v1.charges.list_async()).data) == 1


async def test_a_decline_is_repeated_but_a_bad_parameter_is_not_kept(client: StripeClient) -> None:
    declined: Any = {"amount": 500, "currency": "usd", "payment_method": "pm_card_chargeDeclined", "confirm": True}
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            await client.v1.payment_intents.create_async(declined, {"idempotency_key": "k-2"})
    assert len((await client.v1.charges.list_async()).data) == 1
    wrong: Any = {"amount": "x", "currency": "usd"}
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.payment_intents.create_async(wrong, {"idempotency_key": "k-3"})
    await client.v1.payment_intents.create_async({"amount": 500, "currency": "usd"}, {"idempotency_key": "k-3"})


async def test_a_key_under_way_is_a_conflict(client: StripeClient, simulated: SimulatedStripe) -> None:
    simulated.add_fault("slow", path="/v1/customers", wait_s=0.2)
    calls = [client.v1.customers.create_async({}, {"idempotency_key": "k-4"}) for _ in range(2)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    (refused,) = [answer for answer in answers if isinstance(answer, stripe.StripeError)]
    assert refused.error is not None
    assert (refused.http_status, refused.error.code) == (409, "idempotency_key_in_use")
    assert KEY not in str(refused)
    assert len((await client.v1.customers.list_async()).data) == 1


async def test_a_key_is_forgotten_after_a_day(client: StripeClient, simulated: SimulatedStripe) -> None:
    first = await client.v1.customers.create_async({}, {"idempotency_key": "k-5"})
    simulated.advance(86_401)
    assert (await client.v1.customers.create_async({}, {"idempotency_key": "k-5"})).id != first.id


async def test_a_lost_reply_hides_what_was_done_and_the_retry_finds_it(simulated: SimulatedStripe) -> None:
    async with connected(simulated.url, retries=2) as patient:
        simulated.add_fault("lose_reply", method="POST", path="/v1/payment_intents")
        intent = await charge(patient, "card_visa")
        assert [each.id for each in (await patient.v1.payment_intents.list_async()).data] == [intent.id]
        simulated.add_fault("lose_reply", method="POST", path="/v1/payment_intents", times=3)
        with pytest.raises(stripe.APIConnectionError):
            await charge(patient, "card_visa")
        assert len((await patient.v1.payment_intents.list_async()).data) == 2


async def test_a_refused_connection_did_nothing(client: StripeClient, simulated: SimulatedStripe) -> None:
    simulated.add_fault("refuse", path="/v1/checkout/*")
    with pytest.raises(stripe.APIConnectionError):
        await sell(client)
    simulated.add_fault("rate_limit", path="/v1/checkout/*")
    with pytest.raises(stripe.RateLimitError):
        await sell(client)
    assert (await client.v1.checkout.sessions.list_async()).data == []


@pytest.mark.parametrize(("does", "made"), [("error", 0), ("error_after", 1)])
async def test_a_500_is_kept_whether_or_not_it_was_done(
    client: StripeClient, simulated: SimulatedStripe, does: str, made: int
) -> None:
    simulated.add_fault(does, path="/v1/customers")
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            await client.v1.customers.create_async({}, {"idempotency_key": "k-6"})
    assert len((await client.v1.customers.list_async()).data) == made


async def test_orders_over_http_are_told_what_is_wrong(simulated: SimulatedStripe) -> None:
    for path, body in (
        ("nothing/here", b"{}"),
        ("charges/ch_none/dispute", b"{}"),
        ("charges/ch_none/dispute", b'{"amount":"x"}'),
        ("charges/ch_none/dispute", b'{"nonsense":1}'),
        ("charges/ch_none/dispute", b"{"),
        ("faults", b'{"does":"explode"}'),
        ("clock", b'{"advance_s":-1}'),
    ):
        status, said = await raw(f"{simulated.url}/_sandbox/{path}", "POST", body)
        assert (status in (400, 404), "message" in said["error"]) == (True, True)


async def test_the_same_calls_under_one_seed_give_the_same_ids() -> None:
    async def history() -> list[str]:
        settings = SandboxStripeSettings(seed=42, later_s=0.0)
        stands_still = SimulatedStripe(settings, clock=lambda: 1_800_000_000.0)
        async with stands_still as simulated, connected(simulated.url) as client:
            await charge(client, "card_createDispute")
            events = await client.v1.events.list_async()
            return [event.id for event in events.data]

    assert await history() == await history()


async def test_a_full_sandbox_refuses_and_keeps_what_it_has() -> None:
    small = SimulatedStripe(SandboxStripeSettings(objects_max=2, events_max=1))
    async with small as simulated, connected(simulated.url) as client:
        for _ in range(2):
            await client.v1.customers.create_async()
        with pytest.raises(stripe.APIError):
            await client.v1.customers.create_async()
        assert len((await client.v1.events.list_async()).data) == 1
