"""What the gateway refuses: before upstream hears of it, with the status that makes an SDK do the right thing."""

import asyncio
import json
from typing import Any

import openai as sdk
import pytest

from gateway.core.access.key_terms import KeyTerms
from gateway.core.access.keys import make_key
from gateway.sandbox.openai import SimulatedOpenAI
from tests.books import OPERATOR
from tests.patience import PATIENCE_S
from tests.proxy.prices import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, ask_of
from tests.proxy.stack import Running, Stack, until
from tests.proxy.wire import Client, Received, ScriptedUpstream, answer, ask, request


def error_of(got: Received) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(got.body)["error"]
    assert {"message", "type", "code", "param"} <= error.keys()
    assert got.get(b"x-gateway-request-id")
    assert got.get(b"content-type") == b"application/json"
    return error


async def assert_untouched(stack: Stack, openai: SimulatedOpenAI) -> None:
    """Nothing was forwarded, held or charged."""
    assert len(openai.log) == 0
    assert await stack.lines() == []
    assert await stack.held() == 0


async def test_whatever_is_wrong_with_a_key_the_answer_is_the_same_401(stack: Stack, openai: SimulatedOpenAI) -> None:
    revoked, key_id = await stack.stores.keys.issue(stack.account.id)
    await stack.stores.keys.revoke(key_id)
    unknown = make_key(b"\x01" * 32)
    given: list[list[tuple[bytes, bytes]]] = [
        [],
        [(b"Authorization", b"")],
        [(b"Authorization", b"Bearer ")],
        [(b"Authorization", b"Bearer nonsense")],
        [(b"Authorization", b"Basic " + stack.key.encode())],
        [(b"Authorization", b"Bearer " + stack.key.encode()[:-1])],
        [(b"Authorization", b"Bearer " + stack.key.encode() + b" x")],
        [(b"Authorization", b"Bearer " + unknown.encode())],
        [(b"Authorization", b"Bearer " + revoked.encode())],
        [(b"Authorization", b"Bearer " + stack.key.encode()), (b"authorization", b"Bearer " + unknown.encode())],
        [(b"Authorization", b"Bearer \xff\xfe")],
    ]
    answers = [await ask(stack.address, request(CHAT, "", ask_of(CHAT), fields)) for fields in given]
    assert {(got.status, got.body, got.get(b"x-should-retry")) for got in answers} == {(401, answers[0].body, b"false")}
    assert error_of(answers[0])["code"] == "invalid_api_key"
    await assert_untouched(stack, openai)


async def test_a_revoked_key_stops_working_soon(stack: Stack) -> None:
    key, key_id = await stack.stores.keys.issue(stack.account.id)
    assert (await ask(stack.address, request(CHAT, key, ask_of(CHAT)))).status == 200
    await stack.stores.keys.revoke(key_id)
    async with asyncio.timeout(PATIENCE_S):
        while (await ask(stack.address, request("/v1/models", key, method="GET"))).status != 401:
            await asyncio.sleep(0.05)


async def test_a_suspended_account_is_refused(stack: Stack, openai: SimulatedOpenAI) -> None:
    suspended = await stack.new_account("suspended")
    await stack.stores.account_desk.set_status(suspended.id, "suspended", OPERATOR)
    got = await ask(stack.address, request(CHAT, suspended.key, ask_of(CHAT)))
    assert (got.status, error_of(got)["code"]) == (403, "account_suspended")
    await assert_untouched(stack, openai)


@pytest.mark.parametrize(("decided", "code"), [("revoked", "invalid_api_key"), ("suspended", "account_suspended")])
async def test_a_call_whose_body_is_long_in_coming_meets_what_was_decided_of_its_caller_meanwhile(
    stack: Stack, openai: SimulatedOpenAI, decided: str, code: str
) -> None:
    key, key_id = await stack.stores.keys.issue(stack.account.id)
    body = ask_of(CHAT)
    fields = [(b"Expect", b"100-continue"), (b"Content-Length", b"%d" % len(body))]
    head = request(CHAT, key, fields=fields, method="post").replace(b"post ", b"POST ", 1)
    async with Client.connect(stack.address) as client:
        assert (await client.begin(head)).status == 100  # it was admitted, and its body is waited for
        if decided == "revoked":
            await stack.stores.keys.revoke(key_id)
        else:
            await stack.stores.account_desk.set_status(stack.account.id, "suspended", OPERATOR)
        await stack.gateway.callers.refresh_step()
        assert error_of(await client.ask(body))["code"] == code
    await assert_untouched(stack, openai)


BAD_BODIES: list[tuple[str, bytes, int, str | None]] = [
    (CHAT, b"", 400, None),
    (CHAT, b"not json", 400, None),
    (CHAT, b"[1]", 400, None),
    (CHAT, b'{"model":"gpt-4o-mini"', 400, None),
    (CHAT, b'{"model":"\xff"}', 400, None),
    (CHAT, b"[" * 100_000, 400, None),
    (CHAT, b'{"messages":[]}', 400, "model"),
    (CHAT, ask_of(CHAT, model=7), 400, "model"),
    (CHAT, ask_of(CHAT, max_tokens="many"), 400, "max_tokens"),
    (CHAT, ask_of(CHAT, max_tokens=-1), 400, "max_tokens"),
    (CHAT, ask_of(CHAT, max_completion_tokens=10**30), 400, "max_completion_tokens"),
    (CHAT, ask_of(CHAT, max_tokens=1.5), 400, "max_tokens"),
    (CHAT, ask_of(CHAT, n=0), 400, "n"),
    (CHAT, ask_of(CHAT, n=10**6), 400, "n"),
    (CHAT, ask_of(CHAT, stream="yes"), 400, "stream"),
    (CHAT, ask_of(CHAT, stream=True, stream_options=[1]), 400, "stream_options"),
    (CHAT, ask_of(CHAT, service_tier="ultrafast"), 400, "service_tier"),
    (CHAT, ask_of(CHAT, tools=[{"type": "web_search"}]), 403, "tools"),
    (CHAT, ask_of(CHAT, web_search_options={}), 403, "web_search_options"),
    (CHAT, ask_of(CHAT, model="gpt-unheard-of"), 404, "model"),
    (CHAT, ask_of(CHAT, model="ft:gpt-4o-mini:me::1"), 404, "model"),
    (CHAT, ask_of(CHAT, model="x" * 100_000), 404, "model"),
    (RESPONSES, ask_of(RESPONSES, max_output_tokens=-5), 400, "max_output_tokens"),
    (RESPONSES, ask_of(RESPONSES, background=True), 403, "background"),
    (COMPLETIONS, ask_of(COMPLETIONS, best_of=10**9), 400, "best_of"),
    (EMBEDDINGS, ask_of(EMBEDDINGS, model=None), 400, "model"),
]


async def test_a_body_whose_cost_cannot_be_known_never_reaches_upstream(stack: Stack, openai: SimulatedOpenAI) -> None:
    for endpoint, body, status, param in BAD_BODIES:
        got = await ask(stack.address, request(endpoint, stack.key, body))
        assert (got.status, error_of(got)["param"]) == (status, param), body[:80]
        assert got.get(b"x-should-retry") == b"false"
        assert len(got.body) < 1000
    await assert_untouched(stack, openai)


async def test_what_money_does_not_need_is_for_upstream_to_judge(stack: Stack, openai: SimulatedOpenAI) -> None:
    got = await ask(stack.address, request(CHAT, stack.key, b'{"model":"gpt-4o-mini","temperature":"hot"}'))
    assert got.status == 400  # by the simulated OpenAI: there are no messages
    assert got.get(b"x-request-id") == openai.log[0].request_id.encode()
    assert (await stack.line()).outcome == "void"


async def test_a_path_or_method_that_is_not_offered_is_refused(stack: Stack, openai: SimulatedOpenAI) -> None:
    for method, target, status in [
        ("POST", "/v1/images/generations", 403),
        ("GET", "/v1/files", 403),
        ("POST", "/v1/models/../chat/completions", 403),
        ("POST", "/v1/chat/completions/", 403),
        ("POST", "//v1/chat/completions", 404),
        ("POST", "/V1/chat/completions", 404),
        ("GET", "/", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models/gpt-4o", 405),
    ]:
        got = await ask(stack.address, request(target, stack.key, ask_of(CHAT), method=method))
        assert got.status == status, target
        error_of(got)
    await assert_untouched(stack, openai)


async def test_too_little_credit_is_a_402_that_says_what_would_fit(stack: Stack, openai: SimulatedOpenAI) -> None:
    poor = await stack.new_account("poor", ucr=200_000)
    got = await ask(stack.address, request(CHAT, poor.key, ask_of(CHAT, max_tokens=1000)))
    assert got.status == 402
    assert got.get(b"x-should-retry") == b"false"
    error = error_of(got)
    assert (error["code"], error["bound"], error["available_ucr"]) == ("insufficient_credits", "balance", 200_000)
    assert error["needed_ucr"] > 200_000
    assert error["available"] == "0.2"
    assert error["needed"] == f"{error['needed_ucr'] / 1e6:.6f}".rstrip("0")
    await assert_untouched(stack, openai)
    affordable = error["affordable_output_tokens"]
    assert affordable > 0
    more = await ask(stack.address, request(CHAT, poor.key, ask_of(CHAT, max_tokens=affordable + 1)))
    assert more.status == 402
    fitting = await ask(stack.address, request(CHAT, poor.key, ask_of(CHAT, max_tokens=affordable)))
    assert fitting.status == 200


async def test_an_account_without_credit_is_refused_by_the_sdks_own_error(
    stack: Stack, openai: SimulatedOpenAI
) -> None:
    broke = await stack.new_account("broke", credits=0)
    async with stack.client(broke.key) as client:
        with pytest.raises(sdk.APIStatusError) as refused:
            await client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}], max_tokens=10
            )
    assert refused.value.status_code == 402
    assert refused.value.code == "insufficient_credits"
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["affordable_output_tokens"] == 0
    await assert_untouched(stack, openai)


async def test_text_is_counted_before_a_call_is_refused(stack: Stack, openai: SimulatedOpenAI) -> None:
    """The bytes of the text alone would not fit; its tokens do."""
    messages = [{"role": "user", "content": "understanding " * 2000}]
    body = ask_of(CHAT, messages=messages, max_tokens=10)
    rich = await ask(stack.address, request(CHAT, stack.key, body))
    assert rich.status == 200
    cheap_bound = (await stack.line()).held
    modest = await stack.new_account("modest", ucr=cheap_bound // 3)
    got = await ask(stack.address, request(CHAT, modest.key, body))
    assert got.status == 200
    assert (await stack.lines())[-1].held < cheap_bound // 3
    assert len(openai.log) == 2


async def test_a_body_beyond_the_bound_is_413_and_held_for_nothing(running: Running, openai: SimulatedOpenAI) -> None:
    async with running(openai.url, edge={"body_bytes_max": 100_000}) as stack:
        fits = ask_of(CHAT).ljust(100_000)
        assert (await ask(stack.address, request(CHAT, stack.key, fits))).status == 200
        got = await ask(stack.address, request(CHAT, stack.key, fits + b" "))
        assert (got.status, error_of(got)["code"]) == (413, "request_too_large")
        head = request(CHAT, stack.key, b"", [(b"Transfer-Encoding", b"chunked")]).replace(
            b"Content-Length: 0\r\n", b""
        )
        chunked = b"%x\r\n%b\r\n" % (len(fits) + 1, fits + b" ")
        got = await ask(stack.address, head + chunked)
        assert got.status == 413
        assert len(openai.log) == 1


async def test_a_body_of_the_whole_32_mib_is_served(stack: Stack, openai: SimulatedOpenAI) -> None:
    body = ask_of(CHAT).ljust(32 * 1024 * 1024)
    assert stack.config.edge.body_bytes_max == len(body)
    got = await ask(stack.address, request(CHAT, stack.key, body))
    assert got.status == 200
    assert openai.log[0].body_bytes == len(body)


async def test_headers_beyond_the_bound_are_431(stack: Stack, openai: SimulatedOpenAI) -> None:
    for fields in ([(b"X", b"y" * 70_000)], [(b"X-%d" % number, b"y") for number in range(200)]):
        got = await ask(stack.address, request(CHAT, stack.key, ask_of(CHAT), fields))
        assert (got.status, error_of(got)["code"]) == (431, "headers_too_large")
    await assert_untouched(stack, openai)


async def test_a_slow_body_is_408(running: Running, openai: SimulatedOpenAI) -> None:
    async with running(openai.url, edge={"body_idle_timeout_ms": 300}) as stack:
        body = ask_of(CHAT)
        whole = request(CHAT, stack.key, body)
        got = await ask(stack.address, whole[: -len(body) // 2])
        assert (got.status, error_of(got)["code"]) == (408, "request_timeout")
        await assert_untouched(stack, openai)


async def test_who_leaves_while_sending_is_forgotten(stack: Stack, openai: SimulatedOpenAI) -> None:
    async with Client.connect(stack.address) as client:
        client.writer.write(request(CHAT, stack.key, ask_of(CHAT))[:-10])
        await until(lambda: stack.gateway.server.running == 1)
    await assert_untouched(stack, openai)


async def test_calls_that_race_for_the_last_credits_admit_exactly_what_fits(
    scripted: Stack, upstream: ScriptedUpstream
) -> None:
    released = asyncio.Event()

    async def serve_when_released(_: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.write(answer(b'{"model":"gpt-4o-mini","usage":{"prompt_tokens":9,"completion_tokens":2}}'))

    upstream.serve = serve_when_released
    probe = await scripted.new_account("probe", ucr=1)
    refused = await ask(scripted.address, request(CHAT, probe.key, ask_of(CHAT)))
    one = error_of(refused)["needed_ucr"]  # by its tokens, which is less than by its bytes
    racing = await scripted.new_account("racing", ucr=3 * one + one // 2)
    data = request(CHAT, racing.key, ask_of(CHAT))
    calls = {asyncio.create_task(ask(scripted.address, data)) for _ in range(12)}
    async with asyncio.timeout(PATIENCE_S):
        while sum(call.done() for call in calls) < 9:
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=0.01)
        # Nothing was settled so far, so nothing was given back.
        released.set()
        answers = await asyncio.gather(*calls)
    assert sorted(got.status for got in answers) == [200] * 3 + [402] * 9
    assert len(upstream.requests) == 3


@pytest.mark.parametrize(
    ("terms", "path", "code"),
    [
        (KeyTerms(scopes=frozenset({"read"})), CHAT, "scope_missing"),
        (KeyTerms(scopes=frozenset({"read"})), "/v1/models", "scope_missing"),
        (KeyTerms(models=("gpt-4o", "o?")), CHAT, "model_not_allowed"),
        (KeyTerms(endpoints=("/v1/embeddings",)), CHAT, "endpoint_not_allowed"),
        (KeyTerms(endpoints=("/v1/chat/*",)), "/v1/models", "endpoint_not_allowed"),
        (KeyTerms(networks=("192.0.2.0/24",)), CHAT, "address_not_allowed"),
        (KeyTerms(networks=("192.0.2.0/24",)), "/v1/models", "address_not_allowed"),
    ],
)
async def test_a_key_is_held_to_its_terms(
    stack: Stack, openai: SimulatedOpenAI, terms: KeyTerms, path: str, code: str
) -> None:
    key, _ = await stack.stores.keys.issue(stack.account.id, terms)
    forged = [(b"X-Forwarded-For", b"192.0.2.7")]  # nobody trusts the one who says so
    asked = request(path, key, ask_of(CHAT), forged) if path == CHAT else request(path, key, b"", forged, method="GET")
    got = await ask(stack.address, asked)
    assert (got.status, error_of(got)["code"]) == (403, code)
    await assert_untouched(stack, openai)


async def test_a_key_within_its_terms_is_served(running: Running, openai: SimulatedOpenAI) -> None:
    async with running(openai.url, edge={"trusted_proxies": ["127.0.0.0/8"]}) as stack:
        terms = KeyTerms(models=("gpt-4o*",), endpoints=("/v1/chat/*",), networks=("192.0.2.0/24",))
        key, _ = await stack.stores.keys.issue(stack.account.id, terms)
        for forwarded, status in ((b"192.0.2.7", 200), (b"192.0.2.7, 198.51.100.1", 403), (b"unknown", 403)):
            got = await ask(stack.address, request(CHAT, key, ask_of(CHAT), [(b"X-Forwarded-For", forwarded)]))
            assert (forwarded, got.status) == (forwarded, status)
