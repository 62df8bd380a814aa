"""However upstream fails, the caller sees what DESIGN §8 says, and is charged what §8 says."""

import asyncio
import json
from typing import Any, NamedTuple

import pytest

from gateway.sandbox.openai import LogEntry, SimulatedOpenAI, TokenCounts
from tests.proxy.conftest import Logs
from tests.proxy.prices import CHAT, COMPLETIONS, RESPONSES, ask_of, price_of, price_of_counts
from tests.proxy.stack import Line, Running, Stack
from tests.proxy.wire import Client, Received, ScriptedUpstream, answer, ask, body_pieces, events, request

SHORT = {"upstream": {"head_timeout_ms": 1500, "body_idle_timeout_ms": 1500, "connect_timeout_ms": 1500}}
USED = {"input_tokens": 4, "output_tokens": 2}
HELLO_TOKENS = 4  # "user" and "Say hello.", by o200k_base


class Seen(NamedTuple):
    """What a caller got: `is_whole` tells whether the answer came to its own end."""

    head: Received
    body: bytes
    is_whole: bool

    @property
    def request_id(self) -> str:
        return (self.head.get(b"x-gateway-request-id") or b"").decode()


async def see(stack: Stack, data: bytes) -> Seen:
    async with Client.connect(stack.address) as client:
        head = await client.begin(data)
        body = bytearray()
        try:
            async for piece in body_pieces(head, client.reader):
                body += piece
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return Seen(head, bytes(body), False)
        return Seen(head, bytes(body), True)


class Expected(NamedTuple):
    status: int
    code: str
    is_whole: bool
    outcome: str
    flags: str
    charged: str  # "usage", "held", "delivered", "nothing"


EXACT = Expected(200, "", True, "exact", "", "usage")
MISSING = Expected(200, "", True, "estimated", "usage_missing", "held")
ABSURD = Expected(200, "", True, "estimated", "usage_absurd", "held")
VOID_BROKEN = Expected(502, "upstream_broken", True, "void", "", "nothing")
VOID_CUT = Expected(502, "upstream_broken", True, "void", "cut", "nothing")
CUT = Expected(200, "", False, "estimated", "cut", "delivered")


def passed_on(status: int) -> Expected:
    return Expected(status, "", True, "void", "", "nothing")


PLAIN = {
    "slow-headers=100,ttft=50": EXACT,
    "no-content-length": EXACT,
    "status=400": passed_on(400),
    "status=404": passed_on(404),
    "status=429,retry-after=3": passed_on(429),
    "status=500": passed_on(500),
    "status=503": passed_on(503),
    "status=401": Expected(502, "upstream_rejected", True, "void", "", "nothing"),
    "drop": VOID_BROKEN,
    "stall": Expected(504, "upstream_timeout", True, "void", "", "nothing"),
    "cut=0": VOID_CUT,
    "cut=25": VOID_CUT,  # its length was a lie
    "reset=25": VOID_CUT,
    "stall=25": VOID_CUT,
    "no-content-length,cut=25": VOID_CUT,
    "malformed": MISSING,
    "no-usage": MISSING,
    "absurd-usage=negative": ABSURD,
    "absurd-usage=huge": ABSURD,
    "absurd-usage=details": ABSURD,
    "absurd-usage=text": ABSURD,
}
STREAMED = {
    "ttft=50,rate=500": EXACT,
    "malformed": EXACT,  # one event that cannot be read; the usage comes all the same
    "status=429": passed_on(429),
    "status=401": Expected(502, "upstream_rejected", True, "void", "", "nothing"),
    "drop": VOID_BROKEN,
    "stall": Expected(504, "upstream_timeout", True, "void", "", "nothing"),
    "cut=0": Expected(200, "", False, "void", "cut", "nothing"),
    "cut=9": CUT,
    "stall=9": CUT,
    "encoding=gzip,cut=9": CUT,
    "fail=0": Expected(200, "", True, "void", "failed", "nothing"),
    "fail=9": Expected(200, "", True, "estimated", "failed", "delivered"),
    "no-usage": MISSING,
    "absurd-usage=negative": ABSURD,
    "absurd-usage=huge": ABSURD,
    "absurd-usage=details": ABSURD,
    "absurd-usage=text": ABSURD,
}


def cost_expected(stack: Stack, charged: str, entry: LogEntry, line: Line) -> int:
    match charged:
        case "usage":
            return price_of(stack.card, entry)
        case "held":
            return line.held
        case "delivered":
            counts = TokenCounts(prompt=HELLO_TOKENS, completion=entry.usage.completion - entry.usage.reasoning)
            return price_of_counts(stack.card, entry.served_model, entry.tier, counts)
    return 0


@pytest.mark.parametrize(
    ("endpoint", "stream", "table"),
    [
        (CHAT, False, PLAIN),
        (CHAT, True, STREAMED),
        (RESPONSES, True, STREAMED),
        (COMPLETIONS, True, STREAMED | {"absurd-usage=details": EXACT}),  # its usage has no details
    ],
)
async def test_every_way_upstream_ends_has_its_answer_and_its_charge(
    running: Running, openai: SimulatedOpenAI, endpoint: str, stream: bool, table: dict[str, Expected]
) -> None:
    fields: dict[str, Any] = {"prompt": "userSay hello."} if endpoint == COMPLETIONS else {}
    if endpoint == RESPONSES:
        fields = {"input": [{"role": "user", "content": "Say hello."}]}
    body = ask_of(endpoint, stream=stream, **fields)
    async with running(openai.url, **SHORT) as stack:
        orders = [(b"x-sandbox-scenario", f"tokens=12,{order}".encode()) for order in table]
        seen = await asyncio.gather(*(see(stack, request(endpoint, stack.key, body, [order])) for order in orders))
        lines = {line.request_id: line for line in await stack.lines()}
    entries = {entry.headers["x-sandbox-scenario"].partition(",")[2]: entry for entry in openai.log.entries()}
    wrong = []
    for (order, expected), got in zip(table.items(), seen, strict=True):
        line = lines[got.request_id]
        code = expected.code if f'"code":"{expected.code}"'.encode() in got.body else ""
        actual = Expected(got.head.status, code, got.is_whole, line.outcome, line.flags, expected.charged)
        wanted_cost = cost_expected(stack, expected.charged, entries[order], line)
        if (actual, line.cost) != (expected, wanted_cost):
            wrong.append(f"{order}: {actual} costs {line.cost}, not {expected} at {wanted_cost}; {line.usage}")
    assert not wrong, "\n".join(wrong)


async def test_an_error_before_an_answer_carries_what_a_client_needs_to_go_on(
    running: Running, openai: SimulatedOpenAI
) -> None:
    async with running(openai.url, **SHORT) as stack:
        got = await ask(stack.address, request(CHAT, stack.key, ask_of(CHAT), [(b"x-sandbox-scenario", b"drop")]))
        assert got.get(b"x-should-retry") is None
        assert got.get(b"x-gateway-request-id") == (await stack.line()).request_id.encode()
        assert got.get(b"content-type") == b"application/json"


async def test_nothing_is_charged_while_upstream_is_down(running: Running) -> None:
    async with ScriptedUpstream() as gone:
        url = gone.url
    async with running(url, **SHORT) as stack:
        for target in (CHAT, "/v1/moderations"):
            got = await ask(stack.address, request(target, stack.key, ask_of(CHAT)))
            assert got.status == 502
            assert b'"upstream_unreachable"' in got.body
            assert got.get(b"retry-after") == b"1"
            assert url.rpartition(":")[2].encode() not in got.body
        assert (await stack.line()).outcome == "void"


@pytest.mark.parametrize(
    "junk",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SMTP ready\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Header: 1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: %b\r\n" % (b"y" * 100_000) + b"\r\n",
    ],
)
async def test_an_answer_that_is_no_http_is_a_broken_upstream_and_charges_nothing(
    scripted: Stack, upstream: ScriptedUpstream, junk: bytes
) -> None:
    upstream.answer = junk
    got = await ask(scripted.address, request(CHAT, scripted.key, ask_of(CHAT)))
    assert got.status == 502
    assert b'"upstream_broken"' in got.body
    assert (await scripted.line()).outcome == "void"


@pytest.mark.parametrize(("usage", "outcome", "flags"), [(None, "void", "failed"), (USED, "exact", "")])
async def test_a_response_that_failed_is_charged_what_it_says_it_used(
    scripted: Stack, upstream: ScriptedUpstream, usage: dict[str, int] | None, outcome: str, flags: str
) -> None:
    failed: dict[str, object] = {
        "status": "failed",
        "error": {"code": "server_error", "message": "x"},
        "output": [],
        "usage": usage,
    }
    upstream.answer = answer(json.dumps(failed).encode())
    got = await ask(scripted.address, request(RESPONSES, scripted.key, ask_of(RESPONSES)))
    line = await scripted.line()
    assert (got.status, line.outcome, line.flags) == (200, outcome, flags)
    assert (line.cost > 0) == (usage is not None)


async def test_an_empty_success_keeps_the_hold(scripted: Stack, upstream: ScriptedUpstream) -> None:
    upstream.answer = answer(b"")
    got = await ask(scripted.address, request(CHAT, scripted.key, ask_of(CHAT)))
    assert (got.status, got.body) == (200, b"")
    line = await scripted.line()
    assert (line.flags, line.cost) == ("usage_missing", line.held)


async def test_an_overrun_is_captured_in_full_below_zero_and_then_nothing_is_admitted(
    running: Running, openai: SimulatedOpenAI
) -> None:
    async with running(openai.url) as stack:
        probe = await ask(stack.address, request(CHAT, stack.key, ask_of(CHAT, max_tokens=1)))
        assert probe.status == 200
        held = (await stack.line()).held
        poor = await stack.new_account("poor", ucr=held)
        openai.set_scenario("model=gpt-4")
        got = await ask(stack.address, request(CHAT, poor.key, ask_of(CHAT, max_tokens=1)))
        assert got.status == 200
        openai.set_scenario("")
        line = (await stack.lines())[-1]
        assert (line.flags, line.cost) == ("overrun", price_of(stack.card, openai.log[-1]))
        assert (await stack.balance(poor)).available == held - line.cost < 0
        assert (
            got.get(
                b"x-credits-remaining",
            )
            == f"{(held - line.cost) / 1e6:.6f}".rstrip("0").encode()
        )
        refused = await ask(stack.address, request(CHAT, poor.key, ask_of(CHAT, max_tokens=1)))
        assert refused.status == 402
        assert len(openai.log) == 2


async def test_flagged_calls_are_counted_and_logged(stack: Stack, openai: SimulatedOpenAI, logs: Logs) -> None:
    openai.set_scenario("no-usage")
    await ask(stack.address, request(CHAT, stack.key, ask_of(CHAT)))
    await stack.quiet()
    assert dict(stack.gateway.tally.flags) == {"usage_missing": 1}
    assert [entry["flags"] for entry in logs if entry["event"] == "call flagged"] == [("usage_missing",)]


def so_far(words: int, text: str) -> bytes:
    """A chunk of an upstream that reports usage as it goes."""
    usage = {"prompt_tokens": 10, "completion_tokens": words}
    return b"data: %b\n\n" % json.dumps({"choices": [{"delta": {"content": text}}], "usage": usage}).encode()


@pytest.mark.parametrize(
    ("reported", "charged"),
    [(50, 50), (2, 8)],  # thought beside what it said; or said more since
)
async def test_usage_reported_before_a_cut_is_charged_or_what_was_delivered_if_that_is_more(
    scripted: Stack, upstream: ScriptedUpstream, reported: int, charged: int
) -> None:
    said = (
        so_far(reported, "one two three four")
        + b'data: {"choices":[{"delta":{"content":" five six seven eight"}}]}\n\n'
    )
    upstream.answer = events(said).removesuffix(b"0\r\n\r\n") + b"no chunk\r\n"
    await see(scripted, request(CHAT, scripted.key, ask_of(CHAT, stream=True)))
    line = await scripted.line()
    assert (line.outcome, line.flags) == ("estimated", "cut")
    assert (line.usage.input, line.usage.output) == (10, charged)
