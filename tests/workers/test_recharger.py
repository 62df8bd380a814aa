"""Automatic recharge: a card is charged once for each fall of the balance, whatever dies, is lost or is refused."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from stripe import StripeClient

from gateway.adapters.stripe.client import Sale
from gateway.app.stripe import StripeParts
from gateway.core.money import UCR_PER_CREDIT
from gateway.core.shards import SHARD_KEYS, shard_of
from gateway.sandbox.openai import SimulatedOpenAI
from tests.patience import PATIENCE_S
from tests.proxy.stack import Running
from tests.recharging import age, agree, buy, buyer, charges, recharge, remedies, shown, use_card
from tests.shop import Shop


@pytest.fixture
async def shop(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Shop]:
    async with buyer(running, openai) as shop:
        yield shop


async def test_it_is_off_until_somebody_agrees(shop: Shop, client: StripeClient) -> None:
    assert await shown(shop) == {"on": False}
    await recharge(shop)
    assert await charges(client) == []


async def test_a_balance_below_the_threshold_is_charged_once_and_can_be_spent(shop: Shop, client: StripeClient) -> None:
    await agree(shop)
    for _ in range(3):
        await recharge(shop)
    assert await charges(client) == [(1000, "succeeded")]
    assert await shop.available() == 15_000 * UCR_PER_CREDIT
    assert await shop.kinds() == ["top_up", "top_up"]


async def test_two_workers_at_once_charge_once(shop: Shop, client: StripeClient) -> None:
    await agree(shop)
    others = [StripeParts(shop.stack.config, shop.stack.stores) for _ in range(3)]
    try:
        for _ in range(3):
            await asyncio.gather(*(recharge(shop, parts) for parts in (shop.parts, *others)))
        assert await charges(client) == [(1000, "succeeded")]
    finally:
        for parts in others:
            await parts.close()


async def test_credit_that_redis_does_not_have_yet_counts(shop: Shop, client: StripeClient) -> None:
    await agree(shop)
    await shop.parts.recharger.step()
    await shop.parts.recharger.idle()  # posted, and still queued for Redis
    assert await shop.available() == 5_000 * UCR_PER_CREDIT
    await shop.parts.recharger.step()
    await shop.parts.recharger.idle()
    assert await charges(client) == [(1000, "succeeded")]


async def test_the_database_holds_an_account_to_one_open_attempt(shop: Shop) -> None:
    await agree(shop)
    (watched,) = await shop.parts.recharges.watched()
    assert await shop.parts.recharges.begin(watched, "usd", is_live=False)
    assert await shop.parts.recharges.begin(watched, "usd", is_live=False) is None
    with pytest.raises(asyncpg.UniqueViolationError):
        await shop.stack.stores.pool.execute(
            "INSERT INTO recharge_attempt (purchase_id, account_id, customer_id, card_id)"
            " SELECT id, account_id, 'c', 'p' FROM purchase WHERE package = 'starter'"
        )


async def test_a_month_has_a_maximum(shop: Shop, client: StripeClient) -> None:
    await agree(shop, thresholdCredits=1_000_000, monthCentsMax=2500)
    for _ in range(4):
        await recharge(shop)
    assert await charges(client) == [(1000, "succeeded"), (1000, "succeeded")]


async def test_a_charge_that_lands_after_its_attempt_was_given_up_counts_in_its_month(
    shop: Shop, client: StripeClient
) -> None:
    await agree(shop, thresholdCredits=1_000_000, monthCentsMax=1500)
    recharges = shop.parts.recharges
    (watched,) = await recharges.watched()
    attempt = await recharges.begin(watched, "usd", is_live=False)
    assert attempt is not None
    await recharges.drop(attempt, "Stripe never heard of it")
    sale = Sale(attempt.purchase_id, shop.account.id, attempt.customer_id, "late", 1000, "usd", saves_card=False)
    await shop.parts.stripe.charge_card(sale, attempt.card_id)
    await shop.settle()
    await recharge(shop)
    assert await charges(client) == [(1000, "succeeded")]
    assert await recharges.month_cents(shop.account.id) == 1000


@pytest.mark.parametrize(("seconds", "counted"), [(-1, 0), (1, 1000)])
async def test_a_charge_counts_in_the_month_of_its_account_in_which_it_was_paid(
    shop: Shop, seconds: int, counted: int
) -> None:
    """The attempt may be of the month before; and where this month began 14 hours before UTC's."""
    await agree(shop)
    await recharge(shop)
    pool = shop.stack.stores.pool
    await pool.execute("UPDATE account SET time_zone = 'Pacific/Kiritimati' WHERE id = $1::uuid", shop.account.id)
    began = "date_trunc('month', now() AT TIME ZONE 'Pacific/Kiritimati') AT TIME ZONE 'Pacific/Kiritimati'"
    await pool.execute(f"UPDATE purchase SET paid_at = {began} + $1 * interval '1 s'", seconds)
    await pool.execute("UPDATE recharge_attempt SET created_at = created_at - interval '40 days'")
    assert await shop.parts.recharges.month_cents(shop.account.id) == counted


async def test_an_answer_that_was_lost_is_looked_up_and_nothing_is_charged_twice(
    shop: Shop, client: StripeClient
) -> None:
    await agree(shop)
    shop.simulated.add_fault("lose_reply", method="POST", path="/v1/payment_intents", times=3)
    shop.simulated.set_scenario(suppress=1.0)  # nor does an event tell
    await recharge(shop)
    assert await shop.available() == 5_000 * UCR_PER_CREDIT
    await recharge(shop)
    await age(shop)
    await recharge(shop)
    assert await charges(client) == [(1000, "succeeded")]
    assert await shop.available() == 15_000 * UCR_PER_CREDIT


async def test_a_question_that_never_arrived_is_asked_again_in_the_same_words(shop: Shop, client: StripeClient) -> None:
    await agree(shop)
    shop.simulated.add_fault("refuse", method="POST", path="/v1/payment_intents", times=3)
    await recharge(shop)
    assert await charges(client) == []
    await age(shop)
    await recharge(shop)
    assert await charges(client) == [(1000, "succeeded")]


async def test_a_worker_that_died_before_asking_leaves_an_attempt_that_another_ends(
    shop: Shop, client: StripeClient
) -> None:
    await agree(shop)
    (watched,) = await shop.parts.recharges.watched()
    await shop.parts.recharges.begin(watched, "usd", is_live=False)
    await recharge(shop)
    assert await charges(client) == []
    await age(shop)
    await recharge(shop)
    assert await charges(client) == [(1000, "succeeded")]


async def test_an_attempt_at_another_stripe_than_now_ends(shop: Shop, client: StripeClient) -> None:
    await agree(shop)
    (watched,) = await shop.parts.recharges.watched()
    await shop.parts.recharges.begin(watched, "usd", is_live=False)
    await shop.stack.stores.pool.execute("UPDATE recharge_attempt SET customer_id = 'cus_of_test_mode'")
    for _ in range(2):
        await age(shop)
        await recharge(shop)
    assert await charges(client) == [(1000, "succeeded")]


async def test_a_decline_waits_and_the_fourth_pauses_and_tells(shop: Shop, client: StripeClient) -> None:
    await use_card(shop, client, "pm_card_chargeCustomerFail")
    await agree(shop)
    for _ in range(6):
        await recharge(shop)
    assert len(await charges(client)) == 1
    for _ in range(5):
        await shop.stack.stores.pool.execute("UPDATE recharge SET retry_at = now() WHERE retry_at > now()")
        await recharge(shop)
    assert len(await charges(client)) == 4
    assert (await shown(shop))["paused"] == "declined"
    kinds = await shop.stack.stores.pool.fetch("SELECT kind FROM notice ORDER BY created_at")
    assert [row["kind"] for row in kinds] == ["payment_failed", "recharge_paused"]
    await use_card(shop, client, "pm_card_visa")
    await agree(shop)
    await recharge(shop)
    assert await shop.available() == 15_000 * UCR_PER_CREDIT


async def test_a_card_that_wants_its_owner_pauses_and_offers_a_page(shop: Shop, client: StripeClient) -> None:
    await use_card(shop, client, "pm_card_authenticationRequired")
    await agree(shop)
    for _ in range(3):
        await recharge(shop)
    told = await shown(shop)
    assert told["paused"] == "authentication_required"
    assert told["checkoutUrl"].startswith("http")
    assert [told["checkoutUrl"] in remedy for remedy in await remedies(shop)] == [True]
    shop.pay(told)
    await shop.settle()
    await shop.parts.recharger.step()
    assert (await shown(shop))["paused"] is None
    assert await shop.available() == 15_000 * UCR_PER_CREDIT


async def test_a_page_that_could_not_be_made_is_offered_later_and_once(shop: Shop, client: StripeClient) -> None:
    await use_card(shop, client, "pm_card_authenticationRequired")
    await agree(shop)
    shop.simulated.add_fault("refuse", method="POST", path="/v1/checkout/sessions", times=3)
    await recharge(shop)
    told = await shown(shop)
    assert (told["paused"], told["checkoutUrl"], await remedies(shop)) == ("authentication_required", None, [])
    for _ in range(2):
        await age(shop)
        await recharge(shop)
    assert (await shown(shop))["checkoutUrl"].startswith("http")
    assert len(await remedies(shop)) == 1


async def test_a_wrong_key_of_ours_is_no_decline_of_the_customers(shop: Shop, client: StripeClient) -> None:
    await agree(shop)
    parts = StripeParts(shop.stack.config.model_copy(update={"stripe_key": "sk_wrong"}), shop.stack.stores)
    try:
        await recharge(shop, parts)
    finally:
        await parts.close()
    await age(shop)
    await recharge(shop)
    assert (await charges(client), await remedies(shop)) == ([(1000, "succeeded")], [])


async def test_one_that_cannot_be_charged_now_keeps_nobody_else_waiting(shop: Shop, client: StripeClient) -> None:
    await agree(shop)
    first = shop.account
    shop.account = await shop.stack.new_account("later", ucr=0)
    await buy(shop, save_card=True)
    await agree(shop)
    config = shop.stack.config
    one_at_once = config.stripe.model_copy(update={"recharges_at_once_max": 1})
    parts = StripeParts(config.model_copy(update={"stripe": one_at_once}), shop.stack.stores)
    try:
        for _ in range(3):  # what is paid stays queued for Redis meanwhile, so who was charged is still below
            await parts.recharger.step()
            await parts.recharger.idle()
    finally:
        await parts.close()
    assert await charges(client) == [(1000, "succeeded")] * 2
    assert first.id != shop.account.id


async def test_an_account_that_redis_cannot_read_keeps_nobody_else_from_their_recharge(
    shop: Shop, client: StripeClient
) -> None:
    await agree(shop)
    unreadable = shop.account
    shop.account = await shop.stack.new_account("sound", ucr=0)
    await buy(shop, save_card=True)
    await agree(shop)
    in_redis = SHARD_KEYS[shard_of(unreadable.id)].account(unreadable.id)
    await shop.stack.stores.link.command(b"SET", in_redis, b"no hash")
    await recharge(shop)
    await shop.stack.stores.link.command(b"DEL", in_redis)
    assert await charges(client) == [(1000, "succeeded")]


async def test_a_call_that_crosses_the_threshold_leads_to_a_charge_within_seconds(
    shop: Shop, client: StripeClient
) -> None:
    await agree(shop, thresholdCredits=5_000)
    async with asyncio.TaskGroup() as group:
        loops = [group.create_task(loop) for loop in shop.parts.loops()]
        async with shop.stack.client(shop.account.key) as caller:
            await caller.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])
        async with asyncio.timeout(PATIENCE_S):
            while not await charges(client):
                await asyncio.sleep(0.05)
        for each in loops:
            each.cancel()
