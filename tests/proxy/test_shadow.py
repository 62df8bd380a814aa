"""Shadow billing: outside of the charging cohort all is measured and priced, and no balance moves."""

import asyncio
from datetime import timedelta

import pytest

from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.shadow import compare
from gateway.core.accounting.ledger import TransferKind
from gateway.core.calls.usage import Usage
from gateway.core.guard.flags import CHARGING, Scope
from gateway.core.holds import Hold, Outcome, Settlement, Terms
from gateway.core.money import UCR_PER_CREDIT
from tests.books import new_id, now_ms
from tests.patience import PATIENCE_S
from tests.proxy.prices import CHAT, ask_of
from tests.proxy.stack import Account, Stack
from tests.proxy.wire import Client, Received, ScriptedUpstream, answer, ask, request

DRILL = Signature("ann", "go-live")
DAY = timedelta(days=1)
ANSWER = answer(
    b'{"id":"x","object":"chat.completion","model":"gpt-4o-mini-2024-07-18","choices":[],'
    b'"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150}}'
)


async def charge(stack: Stack, value: bool, scope: Scope) -> None:
    await stack.stores.flags.set(CHARGING, value, scope, DRILL)
    await stack.gateway.controls.step()


async def call(stack: Stack, account: Account) -> Received:
    return await ask(stack.address, request(CHAT, account.key, ask_of(CHAT)))


@pytest.fixture
async def shadow(stack: Stack) -> Stack:
    """A stack that charges nobody."""
    await charge(stack, False, Scope())
    return stack


async def test_a_shadow_call_is_measured_and_priced_and_its_balance_stays(shadow: Stack) -> None:
    before = await shadow.balance()
    got = await call(shadow, shadow.account)
    assert (got.status, got.get(b"x-credits-held"), got.get(b"x-credits-cost")) == (200, b"0", b"0")
    line = await shadow.line()
    assert line.cost > 0
    assert (line.charged, line.outcome, line.flags) == (0, "exact", "")
    assert await shadow.balance() == before
    assert (await shadow.stores.accounts.balance(shadow.account.id)).total == before.balance
    assert await shadow.stores.pool.fetchval("SELECT count(*) FROM transfer WHERE request_id IS NOT NULL") == 0
    entries = await shadow.stores.pool.fetch("SELECT bucket, amount FROM shadow_entry ORDER BY line")
    assert [tuple(row) for row in entries] == [("shadow_due", -line.cost), ("shadow_revenue", line.cost)]


async def test_a_shadow_call_costs_what_a_charged_one_does(stack: Stack) -> None:
    charged = await call(stack, stack.account)
    await charge(stack, False, Scope())
    shadow = await call(stack, stack.account)
    assert charged.get(b"x-credits-shadow-cost") is None
    assert shadow.get(b"x-credits-shadow-cost") == charged.get(b"x-credits-cost") != b"0"
    first, second = await stack.lines()
    assert (first.cost, first.held, first.usage) == (second.cost, second.held, second.usage)


@pytest.mark.parametrize("ucr", [0, 1])
async def test_who_has_no_credit_is_served_and_owes_nothing(shadow: Stack, ucr: int) -> None:
    poor = await shadow.new_account("poor", ucr=ucr)
    assert (await call(shadow, poor)).status == 200
    assert (await shadow.balance(poor)).balance == ucr


async def test_who_is_in_debt_is_served_and_owes_no_more(shadow: Stack) -> None:
    debtor = await shadow.new_account("debtor", 1)
    await call(shadow, debtor)  # loads it
    await shadow.stores.adjustments.post(TransferKind.ADJUSTMENT, debtor.id, -5 * UCR_PER_CREDIT, "a correction")
    await shadow.stores.crediter.step()
    assert (await call(shadow, debtor)).status == 200
    assert (await shadow.balance(debtor)).balance == -4 * UCR_PER_CREDIT


async def test_within_the_cohort_is_charged_and_outside_of_it_is_not(stack: Stack) -> None:
    other = await stack.new_account("other")
    await charge(stack, True, Scope(accounts=frozenset({other.id})))
    for account in (stack.account, other):
        assert (await call(stack, account)).status == 200
    lines = await stack.lines()
    assert [line.charged == 0 for line in lines] == [True, False]
    assert {line.cost for line in lines} == {lines[0].cost}


async def test_a_running_call_keeps_the_mode_it_began_with(scripted: Stack, upstream: ScriptedUpstream) -> None:
    """It is switched while upstream is thinking: one call begins charged, one in the shadow."""
    arrived, may_answer = asyncio.Event(), asyncio.Event()

    async def think(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await may_answer.wait()
        writer.write(ANSWER)

    upstream.serve = think
    modes = []
    for value in (False, True):
        await charge(scripted, not value, Scope())
        async with Client.connect(scripted.address) as client:
            asked = asyncio.create_task(client.ask(request(CHAT, scripted.key, ask_of(CHAT))))
            await arrived.wait()
            await charge(scripted, value, Scope())
            may_answer.set()
            modes.append((await asked).get(b"x-credits-cost") == b"0")
        arrived.clear()
        may_answer.clear()
    assert modes == [False, True]


async def test_a_lapsed_shadow_call_charges_nothing_and_its_late_end_is_priced(shadow: Stack) -> None:
    terms = Terms(shadow.account.id, "key_1", CHAT, "gpt-4o-mini", shadow.card.version, now_ms(), is_shadow=True)
    hold = Hold(new_id(), 0, "f", terms)
    before = await shadow.balance()
    await shadow.stores.credits.reserve(hold)
    await shadow.stores.credits.renew(hold.request_id, terms.account_id, 0, Usage(), lease_ms=1)
    await asyncio.sleep(0.01)  # by Redis' clock
    await shadow.workers.sweeper.step()
    late = Settlement(hold.request_id, terms, Outcome.ESTIMATED, held=7, cost=7, event_at_ms=now_ms())
    assert await shadow.gateway.settlements.settle(late) is not None
    await shadow.post()
    rows = await shadow.stores.pool.fetch("SELECT phase, cost, charged FROM call_usage ORDER BY recorded_at")
    assert [tuple(row) for row in rows] == [("end", 0, 0), ("correction", 7, 0)]
    assert await shadow.balance() == before


async def test_a_shadow_settlement_survives_a_lost_redis(shadow: Stack) -> None:
    before = await shadow.balance()
    await call(shadow, shadow.account)
    await shadow.stores.link.command(b"FLUSHDB")
    await shadow.workers.rebuilder.step()
    async with asyncio.timeout(PATIENCE_S):
        while not (lines := await shadow.lines()):  # the gateway sends its copy again
            await asyncio.sleep(0.05)
    assert [(line.cost > 0, line.charged) for line in lines] == [(True, 0)]
    assert (await shadow.stores.accounts.balance(shadow.account.id)).total == before.balance


async def test_the_report_sets_shadow_beside_real(stack: Stack) -> None:
    await call(stack, stack.account)
    await charge(stack, False, Scope())
    for _ in range(2):
        await call(stack, stack.account)
    lines = await stack.lines()
    comparison = await compare(stack.stores.pool, DAY)
    (compared,) = comparison.lines
    assert (compared.charged_calls, compared.charged) == (1, lines[0].cost)
    assert (compared.shadow_calls, compared.shadow) == (2, lines[1].cost + lines[2].cost)
    assert await compare(stack.stores.pool, DAY, stack.account.id) == comparison
    assert (await compare(stack.stores.pool, timedelta(0))).lines == []


async def test_a_report_of_many_shows_the_largest_and_sums_all(shadow: Stack) -> None:
    other = await shadow.new_account("other")
    for account in (shadow.account, other, other):
        await call(shadow, account)
    cost = (await shadow.lines())[0].cost
    comparison = await compare(shadow.stores.pool, DAY, lines_max=1)
    assert [(line.account, line.shadow) for line in comparison.lines] == [("other", 2 * cost)]
    assert (comparison.lines_total, comparison.total.shadow_calls, comparison.total.shadow) == (2, 3, 3 * cost)
