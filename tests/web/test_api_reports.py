"""`POST /api/usage/reconcile`: usage made elsewhere is charged for once, however often and at once it is told."""

import asyncio
from functools import partial
from typing import Any

import msgspec
import pytest

from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.usage_reports import ReportMismatch, UsageReports
from gateway.app.sources import new_request_id, now_ms
from gateway.core.access.key_terms import KeyTerms
from gateway.core.calls.usage import Usage
from gateway.core.calls.usage_reports import fingerprint_of, price_report
from gateway.core.guard.flags import CHARGING, Scope
from gateway.core.holds import Hold, Terms
from gateway.core.money import UCR_PER_CREDIT
from gateway.core.pricing.rates import price
from gateway.core.shards import shard_of
from gateway.proxy.leases import OpenHold
from gateway.sandbox.openai import SimulatedOpenAI
from gateway.web.api.reports import UsageAsked
from tests.books import OPERATOR
from tests.patience import PATIENCE_S
from tests.proxy.stack import CREDITS, Running, Stack
from tests.proxy.wire import ask, request
from tests.web.test_api_callers import told

PATH = "/api/usage/reconcile"
TRUSTED = "01a1fd8b-de28-7124-a268-179c6f6c237f"
SERVICE = """
    WITH made AS (INSERT INTO account (id, name) VALUES ($1::text::uuid, 'service') RETURNING id)
    INSERT INTO balance (shard, account_id, bucket)
    SELECT $2::integer, id, unnest(ARRAY['promo', 'paid', 'debt']) FROM made"""
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 400}}


def asked(key: str = "job-1", **more: Any) -> dict[str, Any]:
    return {"idempotencyKey": key, "model": "gpt-4o-mini", "usage": USAGE} | more


async def reporter(stack: Stack, account_id: str = "") -> str:
    terms = KeyTerms(scopes=frozenset({"report"}))
    return (await stack.stores.keys.issue(account_id or stack.account.id, terms))[0]


def cost_of(stack: Stack) -> int:
    row = stack.card.find("gpt-4o-mini")
    assert row is not None
    rate, _ = stack.card.rate_and_key(row, "default", 1000)
    return price(Usage(input=600, input_cached=400, output=500), rate, stack.card.rounding).cost


async def test_a_report_is_charged_once_however_often_it_comes(stack: Stack) -> None:
    key = await reporter(stack)
    status, first = await told(stack, key, "POST", PATH, asked())
    assert (status, first["cost"]["ucr"], first["isCharged"]) == (200, cost_of(stack), True)
    assert first["available"]["ucr"] == CREDITS * UCR_PER_CREDIT - cost_of(stack)

    again = [await told(stack, key, "POST", PATH, asked()) for _ in range(3)]
    line = await stack.line()
    assert [each[0] for each in again] == [200, 200, 200]
    assert {each[1]["correlationId"] for each in again} == {first["correlationId"]} == {line.request_id}
    assert (line.outcome, line.charged, line.usage) == (
        "exact",
        cost_of(stack),
        Usage(input=600, input_cached=400, output=500),
    )


async def test_a_report_that_comes_many_times_at_once_is_charged_once(stack: Stack) -> None:
    key = await reporter(stack)
    answers = await asyncio.gather(*(told(stack, key, "POST", PATH, asked()) for _ in range(12)))

    assert {status for status, _ in answers} == {200}
    assert len(await stack.lines()) == 1
    assert (await stack.balance()).balance == CREDITS * UCR_PER_CREDIT - cost_of(stack)


async def test_what_is_not_known_to_be_settled_is_not_charged_again(stack: Stack) -> None:
    key = await reporter(stack)
    await told(stack, key, "POST", PATH, asked())
    for is_posted in (False, True):
        if is_posted:
            await stack.post()
        await stack.stores.pool.execute("UPDATE usage_report SET settled_at = NULL")  # as if it had died before
        status, _ = await told(stack, key, "POST", PATH, asked())
        assert status == (200 if is_posted else 503)

    assert (await stack.balance()).balance == CREDITS * UCR_PER_CREDIT - cost_of(stack)


@pytest.mark.parametrize("is_posted", [True, False])
async def test_whoever_died_between_hold_and_debit_charged_nothing_and_the_repeat_charges_once(
    running: Running, openai: SimulatedOpenAI, is_posted: bool
) -> None:
    async with running(openai.url, holds={"lease_ms": 1000, "renew_ms": 500}) as stack:
        key = await reporter(stack)
        wanted = msgspec.convert(asked(), UsageAsked)
        content = price_report(stack.card, wanted.model, None, wanted.usage, "default")
        fingerprint, request_id = fingerprint_of(wanted), new_request_id()
        reports = UsageReports(stack.stores.pool)
        async with reports.opened(stack.account.id, "job-1", fingerprint, request_id, content):
            terms = Terms(stack.account.id, "key_gone", PATH, content.model, content.rate_version, now_ms())
            opened = await stack.gateway.leases.open(Hold(request_id, content.cost, fingerprint.hex(), terms))
            assert isinstance(opened, OpenHold)
            stack.gateway.leases.close(opened)
        async with asyncio.timeout(PATIENCE_S):
            while not await stack.workers.sweeper.step():
                await asyncio.sleep(0.05)
        if is_posted:
            await stack.post()
        status = 0
        async with asyncio.timeout(PATIENCE_S):
            while status != 200:
                status, body = await told(stack, key, "POST", PATH, asked())
                await stack.post()

        assert body["correlationId"] == request_id
        assert (await stack.balance()).balance == CREDITS * UCR_PER_CREDIT - cost_of(stack)
        assert [(each.phase, each.charged) for each in await stack.lines()] == [
            ("end", 0),
            ("correction", cost_of(stack)),
        ]


async def test_a_used_key_with_another_body_is_a_conflict(stack: Stack) -> None:
    key = await reporter(stack)
    await told(stack, key, "POST", PATH, asked())
    status, body = await told(stack, key, "POST", PATH, asked(usage={"prompt_tokens": 1, "completion_tokens": 0}))

    assert (status, body["error"]["code"]) == (409, "idempotency_mismatch")
    assert len(await stack.lines()) == 1


async def test_who_cannot_pay_is_told_how_much_more_it_takes_and_may_try_again(stack: Stack) -> None:
    poor = await stack.new_account("poor", ucr=1)
    key = await reporter(stack, poor.id)
    status, body = await told(stack, key, "POST", PATH, asked())
    assert (status, body["error"]["code"]) == (402, "insufficient_credits")
    assert body["error"]["additional_ucr"] == cost_of(stack) - 1

    await stack.stores.accounts.grant(poor.id, cost_of(stack) - 1, "what was missing")
    await stack.stores.crediter.step()
    status, paid = await told(stack, key, "POST", PATH, asked())
    assert (status, paid["available"]["ucr"]) == (200, 0)
    assert (await told(stack, key, "POST", PATH, asked()))[0] == 200


async def test_a_report_that_was_refused_is_tried_again_as_a_call_of_its_own_time(stack: Stack) -> None:
    reports, ids = UsageReports(stack.stores.pool), [new_request_id() for _ in range(4)]
    wanted = msgspec.convert(asked(), UsageAsked)
    content = price_report(stack.card, wanted.model, None, wanted.usage, "default")
    found = []
    for number, request_id in enumerate(ids):
        async with reports.opened(stack.account.id, "job-1", fingerprint_of(wanted), request_id, content) as report:
            found.append(report.request_id)
            if number == 1:
                await report.refused()
    assert found == [ids[0], ids[0], ids[2], ids[2]]


async def test_a_refused_report_is_tried_again_by_no_other_report_and_not_once_it_is_charged(stack: Stack) -> None:
    reports, ids = UsageReports(stack.stores.pool), [new_request_id() for _ in range(4)]
    wanted = msgspec.convert(asked(), UsageAsked)
    content = price_report(stack.card, wanted.model, None, wanted.usage, "default")
    opened = partial(reports.opened, stack.account.id, "job-1", content=content)
    async with opened(fingerprint_of(wanted), ids[0]) as report:
        await report.refused()
    with pytest.raises(ReportMismatch):
        async with opened(bytes(32), ids[1]):
            pass
    async with opened(fingerprint_of(wanted), ids[2]) as report:
        assert report.request_id == ids[2]
        await report.refused()
        await report.settled()  # as by an older gateway
    async with opened(fingerprint_of(wanted), ids[3]) as report:
        assert (report.request_id, report.is_settled) == (ids[2], True)


async def test_a_repeated_report_tells_how_it_was_charged_whatever_is_charged_now(stack: Stack) -> None:
    key = await reporter(stack)
    charged = (await told(stack, key, "POST", PATH, asked("charged")))[1]
    await stack.stores.flags.set(CHARGING, False, Scope(), OPERATOR)
    await stack.gateway.controls.step()
    measured = (await told(stack, key, "POST", PATH, asked("measured")))[1]
    again = (await told(stack, key, "POST", PATH, asked("charged")))[1]
    await stack.stores.flags.clear(CHARGING, OPERATOR)
    await stack.gateway.controls.step()
    later = (await told(stack, key, "POST", PATH, asked("measured")))[1]

    assert [each["isCharged"] for each in (charged, again, measured, later)] == [True, True, False, False]
    assert (await stack.balance()).balance == CREDITS * UCR_PER_CREDIT - cost_of(stack)


async def test_a_report_that_was_charged_is_told_so_when_its_model_is_sold_no_more(stack: Stack) -> None:
    key, wanted = await reporter(stack), msgspec.convert(asked(model="gpt-gone"), UsageAsked)
    assert (await told(stack, key, "POST", PATH, asked(model="gpt-gone")))[0] == 404
    sold = price_report(stack.card, "gpt-4o-mini", None, wanted.usage, "default")
    content = msgspec.structs.replace(sold, model="gpt-gone")
    reports, fingerprint = UsageReports(stack.stores.pool), fingerprint_of(wanted)
    async with reports.opened(stack.account.id, "job-1", fingerprint, new_request_id(), content) as report:
        await report.settled()

    status, body = await told(stack, key, "POST", PATH, asked(model="gpt-gone"))
    assert (status, body["model"], body["cost"]["ucr"]) == (200, "gpt-gone", cost_of(stack))


async def test_a_days_cap_holds_for_reports_too(stack: Stack) -> None:
    key = await reporter(stack)
    found = await stack.stores.caps.find(stack.account.id)
    await stack.stores.caps.set(found, {"day": cost_of(stack)}, Signature("tests", "cap"))
    await stack.gateway.caps.directory.refresh_step()

    assert (await told(stack, key, "POST", PATH, asked("job-1")))[0] == 200
    status, body = await told(stack, key, "POST", PATH, asked("job-2"))
    assert (status, body["error"]["code"]) == (402, "cap_reached")


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"model": "gpt-unheard-of"}, 404, "model"),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": 0}}, 400, "usage"),
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, 400, "usage"),
        ({"usage": {"prompt_tokens": 10**18, "completion_tokens": 0}}, 400, "usage"),
        ({"usage": {"prompt_tokens": 10, "completionTokens": 1000}}, 400, "usage"),
        ({"usage": {"prompt_tokens": 10, "completion_tokens": 1, "output_tokens": 1000}}, 400, "usage"),
        ({"usage": {}}, 400, "usage"),
        ({"serviceTier": "fastest"}, 400, "serviceTier"),
        ({"idempotencyKey": ""}, 400, None),
        ({"idempotencyKey": "a\0b"}, 400, "idempotencyKey"),
        ({"surprise": 1}, 400, None),
        ({"usage": 5}, 400, None),
    ],
)
async def test_what_no_call_can_have_used_is_refused(
    stack: Stack, more: dict[str, Any], status: int, param: str | None
) -> None:
    got, body = await told(stack, await reporter(stack), "POST", PATH, asked() | more)
    assert (got, body["error"]["param"]) == (status, param)
    assert await stack.lines() == []


@pytest.mark.parametrize("body", [b"{", b'{"model":"\xff"}', b'{"usage":{"x":' + b"[" * 100_000])
async def test_a_body_that_nobody_can_read_is_refused_as_one(stack: Stack, body: bytes) -> None:
    got = await ask(stack.address, request(PATH, await reporter(stack), body))
    assert (got.status, msgspec.json.decode(got.body)["error"]["code"]) == (400, "invalid_request")


async def test_an_embedding_names_no_output(stack: Stack) -> None:
    report = asked(model="text-embedding-3-small", usage={"prompt_tokens": 10, "total_tokens": 10})
    assert (await told(stack, await reporter(stack), "POST", PATH, report))[0] == 200


async def test_only_a_key_that_may_report_reports_and_only_of_its_own_account(stack: Stack) -> None:
    other = await stack.new_account("other")
    assert (await told(stack, stack.key, "POST", PATH, asked()))[0] == 403
    status, body = await told(stack, await reporter(stack), "POST", PATH, asked(account=other.id))
    assert (status, body["error"]["code"]) == (403, "scope_missing")


async def test_a_trusted_service_reports_of_every_account(running: Running, openai: SimulatedOpenAI) -> None:
    async with running(openai.url, reports={"trusted_accounts": [TRUSTED]}) as stack:
        await stack.stores.pool.execute(SERVICE, TRUSTED, shard_of(TRUSTED))
        customer = await stack.new_account("customer")
        key = await reporter(stack, TRUSTED)
        for account in (customer.id, "customer"):
            status, body = await told(stack, key, "POST", PATH, asked(account, account=account))
            assert (status, body["account"]) == (200, customer.id)
        assert (await told(stack, key, "POST", PATH, asked("x", account="nobody")))[0] == 404
        await stack.stores.account_desk.set_status(customer.id, "suspended", OPERATOR)
        assert (await told(stack, key, "POST", PATH, asked("y", account="customer")))[0] == 403
        assert (await stack.balance(customer)).balance == CREDITS * UCR_PER_CREDIT - 2 * cost_of(stack)
