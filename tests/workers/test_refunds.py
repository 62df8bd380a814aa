"""Refunds that we make: of unused credit only, within the policy, and once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from stripe import StripeClient

from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.postgres.purchases import AccountMoved, AskedRefund, RefundTooLarge, Unused
from gateway.adapters.redis.credits import CreditsError
from gateway.core.holds import Hold, Settlement
from gateway.core.money import UCR_PER_CREDIT
from gateway.sandbox.openai import SimulatedOpenAI
from gateway.workers.refunds import RefundRefused, Refunds
from tests.books import new_id, settlement
from tests.patience import PATIENCE_S
from tests.proxy.stack import Running
from tests.shop import SIGNED, Shop, open_shop

ALL = None


@pytest.fixture
async def shop(running: Running, openai: SimulatedOpenAI) -> AsyncIterator[Shop]:
    async with open_shop(running, openai) as shop:
        shop.account = await shop.stack.new_account("buyer", ucr=0)
        yield shop


async def create(shop: Shop, purchase_id: str, credits: int | None, *, key: str = "one") -> str:
    amount = None if credits is None else credits * UCR_PER_CREDIT
    made = await shop.parts.refunds.create(purchase_id, amount, key=key, signature=SIGNED)
    await shop.settle()
    return made.state


async def refunded(client: StripeClient) -> list[int]:
    return [each.amount for each in (await client.v1.refunds.list_async()).data]


async def test_all_that_is_unused_is_paid_back(shop: Shop, client: StripeClient) -> None:
    purchase_id = await shop.bought("professional")
    assert await create(shop, purchase_id, ALL) == "made"
    assert (await refunded(client), await shop.available()) == ([5000], 0)
    assert (await shop.kinds())[-1] == "refund"


async def test_the_same_key_is_the_same_refund(shop: Shop, client: StripeClient) -> None:
    purchase_id = await shop.bought()
    for _ in range(3):
        assert await create(shop, purchase_id, 1000) == "made"
    assert (await refunded(client), await shop.available()) == ([100], 4_000 * UCR_PER_CREDIT)


async def test_spent_credit_is_not_paid_back(shop: Shop, client: StripeClient) -> None:
    purchase_id = await shop.bought()
    async with shop.stack.client(shop.account.key) as caller:
        await caller.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])
    await shop.stack.lines()
    with pytest.raises(RefundTooLarge, match=r"at most \$4\.99"):
        await create(shop, purchase_id, 5000)
    assert await create(shop, purchase_id, ALL, key="rest") == "made"
    assert await refunded(client) == [499]
    assert await shop.available() >= 0


@pytest.mark.parametrize(("credits", "why"), [(5001, "cent"), (5, "cent"), (0, "cent"), (-10, "cent")])
async def test_an_amount_that_is_no_whole_cents_is_refused(shop: Shop, credits: int, why: str) -> None:
    purchase_id = await shop.bought()
    with pytest.raises(RefundRefused, match=why):
        await create(shop, purchase_id, credits)


async def test_an_unpaid_an_unknown_and_a_disputed_purchase_are_not_refunded(shop: Shop) -> None:
    told = await shop.buy()
    with pytest.raises(RefundRefused, match="not paid"):
        await create(shop, told["id"], ALL)
    with pytest.raises(RefundRefused, match="no purchase"):
        await create(shop, "nothing", ALL)
    shop.pay(told)
    await shop.settle()
    shop.simulated.order("charges/dispute", await shop.charge_of(told["id"]), amount=100)
    await shop.settle()
    with pytest.raises(RefundRefused, match="disputed"):
        await create(shop, told["id"], ALL)


async def test_a_purchase_is_refunded_within_its_days_only(shop: Shop) -> None:
    purchase_id = await shop.bought()

    late = refunds(shop, shop.parts.unused.of, days_later=31)
    with pytest.raises(RefundRefused, match="30 days"):
        await late.create(purchase_id, ALL, key="one", signature=SIGNED)


async def test_a_refund_whose_answer_was_lost_is_made_once(shop: Shop, client: StripeClient) -> None:
    purchase_id = await shop.bought()
    shop.simulated.add_fault("lose_reply", path="/v1/refunds", times=3)
    assert await create(shop, purchase_id, 1000) in ("requested", "made")
    assert await shop.available() == 4_000 * UCR_PER_CREDIT
    await shop.stack.stores.pool.execute("UPDATE refund SET changed_at = now() - interval '1 hour'")
    await shop.parts.refunds.step()
    assert await create(shop, purchase_id, 1000) == "made"
    assert (await refunded(client), await shop.available()) == ([100], 4_000 * UCR_PER_CREDIT)


async def test_a_refund_in_test_mode_is_not_asked_after_in_live_mode(shop: Shop) -> None:
    purchase_id = await shop.bought()
    shop.simulated.add_fault("refuse", method="POST", path="/v1/refunds", times=3)
    assert await create(shop, purchase_id, 1000) == "requested"
    await shop.stack.stores.pool.execute("UPDATE refund SET changed_at = now() - interval '1 hour'")
    waiting = shop.parts.purchases.refunds_waiting
    assert (len(await waiting(60, is_live=False)), await waiting(60, is_live=True)) == (1, [])


async def test_a_refund_that_stripe_refuses_takes_nothing_more(shop: Shop, client: StripeClient) -> None:
    purchase_id = await shop.bought()
    shop.simulated.set_scenario(suppress=1.0)  # so we do not know that the dashboard was quicker
    intent = await shop.intent_of(purchase_id)
    await client.v1.refunds.create_async({"payment_intent": intent, "amount": 450})
    with pytest.raises(RefundRefused, match="Stripe refused"):
        await create(shop, purchase_id, 1000)
    await shop.settle()
    assert (await refunded(client), await shop.available()) == ([450], 500 * UCR_PER_CREDIT)


async def test_what_a_refused_refund_took_is_given_back_though_stripe_goes_away_in_between(
    shop: Shop, client: StripeClient
) -> None:
    purchase_id = await shop.bought()
    shop.simulated.set_scenario(suppress=1.0)
    intent = await shop.intent_of(purchase_id)
    await client.v1.refunds.create_async({"payment_intent": intent, "amount": 450})

    async def unused(account_id: str) -> Unused:
        """Asked once more when Stripe is about to be: it refuses, and then its payment cannot be read."""
        if await shop.parts.purchases.refund_by_key(purchase_id, "one"):
            shop.simulated.add_fault("error", path="/v1/payment_intents/*")
        return await shop.parts.unused.of(account_id)

    asked = await refunds(shop, unused).create(purchase_id, 1000 * UCR_PER_CREDIT, key="one", signature=SIGNED)
    assert asked.state == "requested"
    await shop.stack.stores.pool.execute("UPDATE refund SET changed_at = now() - interval '1 hour'")
    await shop.parts.refunds.step()
    await shop.handle()
    asked = await shop.parts.purchases.refund_by_key(purchase_id, "one") or asked
    assert (asked.state, await refunded(client), await shop.available()) == ("refused", [450], 500 * UCR_PER_CREDIT)


async def test_a_refund_that_fails_later_gives_the_credit_back(shop: Shop, client: StripeClient) -> None:
    purchase_id = await shop.bought()
    await create(shop, purchase_id, ALL)
    (made,) = (await client.v1.refunds.list_async()).data
    shop.simulated.order("refunds/fail", made.id)
    await shop.settle()
    assert await shop.available() == 5_000 * UCR_PER_CREDIT
    asked = await shop.parts.refunds.create(purchase_id, ALL, key="one", signature=SIGNED)
    assert (asked.state, asked.answer) == ("refused", "the bank sent the money back")
    assert await create(shop, purchase_id, ALL, key="another") == "made"
    assert (await refunded(client), await shop.available()) == ([500, 500], 0)


async def test_refunds_at_once_pay_back_no_more_than_was_bought(shop: Shop, client: StripeClient) -> None:
    purchase_id = await shop.bought()
    made = await asyncio.gather(
        *(create(shop, purchase_id, 3000, key=f"{number}") for number in range(3)), return_exceptions=True
    )
    assert sum(isinstance(each, RefundTooLarge | RefundRefused) for each in made) == 2
    assert sum(await refunded(client)) == 300
    assert await shop.available() == 2_000 * UCR_PER_CREDIT


async def at_once(shop: Shop, purchase_id: str, amounts: list[int | None]) -> list[AskedRefund | Exception]:
    """What is told to operators who ask at the same time for these refunds, with one key.

    Who is told to try again, while Redis learns of another's, does so.
    """

    async def ask(credits: int | None) -> AskedRefund | Exception:
        amount = None if credits is None else credits * UCR_PER_CREDIT
        while True:
            try:
                return await shop.parts.refunds.create(purchase_id, amount, key="one", signature=SIGNED)
            except (AccountMoved, CreditsError):
                await shop.handle()
            except (RefundRefused, RefundTooLarge) as error:
                return error

    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.gather(*(ask(credits) for credits in amounts))


async def test_the_same_key_at_once_is_the_same_refund(shop: Shop, client: StripeClient) -> None:
    told = await at_once(shop, await shop.bought(), [ALL] * 4)
    assert (len({each.id for each in told if isinstance(each, AskedRefund)}), await refunded(client)) == (1, [500])
    assert [each for each in told if not isinstance(each, AskedRefund)] == []


async def test_one_key_at_once_for_two_amounts_is_one_refund_and_the_other_is_told(
    shop: Shop, client: StripeClient
) -> None:
    told = await at_once(shop, await shop.bought(), [1000, 2000])
    (refusal,) = [each for each in told if isinstance(each, Exception)]
    assert isinstance(refusal, RefundRefused)
    assert "already" in str(refusal)
    assert len(await refunded(client)) == 1


async def hold(shop: Shop, credits: int) -> Settlement:
    """A call begins that may cost so much; returned is its end, at no cost."""
    call = msgspec.structs.replace(settlement(shop.account.id, 0), held=credits * UCR_PER_CREDIT)
    await shop.stack.stores.credits.reserve(Hold(call.request_id, call.held, "f", call.terms))
    return call


def refunds(shop: Shop, unused: Callable[[str], Awaitable[Unused]], days_later: int = 0) -> Refunds:
    return Refunds(
        shop.parts.purchases,
        shop.parts.stripe,
        shop.parts.payments,
        days_max=30,
        unused=unused,
        new_id=new_id,
        now=lambda: datetime.now(UTC) + timedelta(days=days_later),
    )


async def test_refunds_at_once_of_two_purchases_share_what_is_unused(shop: Shop, client: StripeClient) -> None:
    bought = [await shop.bought(key="one"), await shop.bought(key="two")]
    call = await hold(shop, 8_000)
    made = await asyncio.gather(
        *(shop.parts.refunds.create(each, 2000 * UCR_PER_CREDIT, key="one", signature=SIGNED) for each in bought),
        return_exceptions=True,
    )
    assert sum(isinstance(each, RefundTooLarge) for each in made) == 1
    assert (await refunded(client), await shop.available()) == ([200], 0)
    await shop.stack.stores.credits.void(call)


async def refused_at_the_last_moment(shop: Shop, purchase_id: str) -> Settlement:
    """A refund that is not made, as a call begins once it was found unused; returned is the call's end."""
    calls: list[Settlement] = []

    async def unused(account_id: str) -> Unused:
        found = await shop.parts.unused.of(account_id)
        if not calls:
            calls.append(await hold(shop, 4_500))
        return found

    with pytest.raises(RefundRefused, match="used meanwhile"):
        await refunds(shop, unused).create(purchase_id, 1000 * UCR_PER_CREDIT, key="one", signature=SIGNED)
    return calls[0]


async def test_no_money_goes_out_for_what_was_spent_before_admission_knew(shop: Shop, client: StripeClient) -> None:
    purchase_id = await shop.bought()
    call = await refused_at_the_last_moment(shop, purchase_id)
    await shop.settle()
    assert (await refunded(client), await shop.available()) == ([], 500 * UCR_PER_CREDIT)
    await shop.stack.stores.credits.void(call)


async def test_a_refund_that_is_being_made_is_refused_by_nobody_else(shop: Shop, client: StripeClient) -> None:
    purchase_id = await shop.bought()
    found: list[str] = []

    async def overdrawn(account_id: str) -> Unused:
        return Unused(-1, 0)

    async def unused(account_id: str) -> Unused:
        """What the first worker asks; when it is about to ask Stripe, a second comes for the same refund."""
        if await shop.parts.purchases.refund_by_key(purchase_id, "one"):
            second = refunds(shop, overdrawn)
            found.append((await second.create(purchase_id, ALL, key="one", signature=SIGNED)).state)
            await second.step()
        return await shop.parts.unused.of(account_id)

    made = await refunds(shop, unused).create(purchase_id, ALL, key="one", signature=SIGNED)
    assert (found, made.state, await refunded(client)) == (["requested"], "made", [500])


async def test_a_refund_that_stripe_shows_is_made_whatever_we_thought(shop: Shop, client: StripeClient) -> None:
    purchase_id = await shop.bought()
    call = await refused_at_the_last_moment(shop, purchase_id)
    asked = await shop.parts.purchases.refund_by_key(purchase_id, "one")
    assert asked is not None
    await shop.parts.stripe.create_refund(asked.payment_intent_id, asked.cents, asked.id)  # one that was very late
    await shop.settle()
    asked = await shop.parts.purchases.refund_by_key(purchase_id, "one")
    assert asked is not None
    assert (asked.state, asked.answer, await refunded(client)) == ("made", "", [100])
    await shop.stack.stores.credits.void(call)


async def test_promotional_credit_is_not_turned_into_money(shop: Shop, client: StripeClient) -> None:
    """What was bought is spent; what is left was a gift."""
    purchase_id = await shop.bought()
    async with shop.stack.client(shop.account.key) as caller:
        await caller.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])
    await shop.stack.lines()
    await shop.stack.stores.accounts.grant(shop.account.id, 10_000 * UCR_PER_CREDIT, "a gift")
    await shop.handle()
    with pytest.raises(RefundTooLarge, match=r"at most \$4\.99"):
        await create(shop, purchase_id, 5000)
    assert await create(shop, purchase_id, ALL, key="rest") == "made"
    assert await refunded(client) == [499]
    assert await shop.available() >= 10_000 * UCR_PER_CREDIT


async def test_a_key_stands_for_one_amount(shop: Shop, client: StripeClient) -> None:
    purchase_id = await shop.bought()
    assert await create(shop, purchase_id, 1000) == "made"
    with pytest.raises(RefundRefused, match=r"\$1\.00 already"):
        await create(shop, purchase_id, 2000)
    assert await refunded(client) == [100]


async def asked_and_waiting(shop: Shop, key: str) -> str:
    """A purchase with a refund of $1 that was promised and not made yet, an hour ago."""
    purchase_id = await shop.bought(key=key)

    async def unused(account_id: str) -> Unused:
        if await shop.parts.purchases.refund_by_key(purchase_id, "one"):
            raise LedgerUnavailable("away")
        return await shop.parts.unused.of(account_id)

    asked = await refunds(shop, unused).create(purchase_id, 1000 * UCR_PER_CREDIT, key="one", signature=SIGNED)
    assert asked.state == "requested"
    await shop.stack.stores.pool.execute("UPDATE refund SET changed_at = now() - interval '1 hour'")
    return purchase_id


@pytest.mark.parametrize("because", ["Stripe does not have its payment", "its payment is not what was sold"])
async def test_refunds_that_cannot_be_made_keep_no_other_from_being_made(
    shop: Shop, client: StripeClient, because: str
) -> None:
    broken = await asked_and_waiting(shop, "broken")
    good = await asked_and_waiting(shop, "good")
    pool = shop.stack.stores.pool
    if because == "its payment is not what was sold":
        await pool.execute("UPDATE purchase SET currency = 'eur' WHERE id = $1::uuid", broken)
    else:
        await pool.execute("UPDATE purchase SET payment_intent_id = 'pi_gone' WHERE id = $1::uuid", broken)
    for number in range(25):
        row = (new_id(), broken, f"more {number}")
        await pool.execute(
            "INSERT INTO refund (id, purchase_id, idempotency_key, cents, reason, changed_at)"
            " VALUES ($1::uuid, $2::uuid, $3, 1, 'a test', now() - interval '2 hours')",
            *row,
        )

    for _ in range(2):
        await shop.parts.refunds.step()

    asked = await shop.parts.purchases.refund_by_key(good, "one")
    assert (asked and asked.state, 100 in await refunded(client)) == ("made", True)
