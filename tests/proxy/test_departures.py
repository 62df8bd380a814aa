"""A caller who leaves is charged for what was consumed, and upstream runs no longer than the policy allows."""

import asyncio
import time
from contextlib import aclosing

from redis.asyncio import Redis

from gateway.sandbox.openai import SimulatedOpenAI, TokenCounts
from gateway.sandbox.openai.log import Outcome, RequestLog
from tests.patience import PATIENCE_S
from tests.proxy.prices import CHAT, RESPONSES, ask_of, price_of, price_of_counts
from tests.proxy.stack import Account, Running, Stack, until
from tests.proxy.test_endings import HELLO_TOKENS
from tests.proxy.wire import Client, request

DRAIN_S = 120  # of the shipped configuration: who is not cancelled is read for so long
# A chat's first event has no word, so twelve events bring eleven words; then upstream says no more.
ELEVEN_WORDS = "tokens=100,stall=12"


def asking(key: str, orders: str, *, stream: bool = True, endpoint: str = CHAT) -> bytes:
    limit = {"max_output_tokens" if endpoint == RESPONSES else "max_tokens": 5000}
    return request(endpoint, key, ask_of(endpoint, stream=stream, **limit), [(b"x-sandbox-scenario", orders.encode())])


async def leave_after_eleven_words(stack: Stack, key: str, orders: str = ELEVEN_WORDS) -> None:
    async with Client.connect(stack.address) as client:
        client.writer.write(asking(key, orders))
        for _ in range(12):
            await client.read_until(b'"content":"')
        await client.read_until(b"\n\n")


async def seconds_to_the_end(openai: SimulatedOpenAI, count: int = 1) -> float:
    """How long it takes from now until upstream knows that `count` of its calls are over."""
    started = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        await openai.log.wait_for_ended(count)
    return time.monotonic() - started


def price_of_words(stack: Stack, words: int, model: str = "gpt-4o-mini") -> int:
    return price_of_counts(stack.card, model, "", TokenCounts(prompt=HELLO_TOKENS, completion=words))


async def cancelling(stack: Stack) -> Account:
    account = await stack.new_account("cancelling")
    await stack.set_policy(account, "cancel")
    return account


async def test_a_stream_whose_caller_left_is_read_to_its_end_and_charged_exactly(
    stack: Stack, openai: SimulatedOpenAI
) -> None:
    await leave_after_eleven_words(stack, stack.key, "tokens=60,rate=200")
    line = await stack.line()
    assert (line.outcome, line.flags) == ("drained", "")
    assert openai.log[0].outcome is Outcome.COMPLETE
    assert line.cost == price_of(stack.card, openai.log[0])


async def test_a_plain_call_whose_caller_left_is_read_to_its_end_and_charged_exactly(
    stack: Stack, openai: SimulatedOpenAI
) -> None:
    async with Client.connect(stack.address) as client:
        client.writer.write(asking(stack.key, "ttft=300", stream=False))
        await openai.log.wait_until(lambda log: log.arrived == 1)
    line = await stack.line()
    assert (line.outcome, line.flags) == ("drained", "")
    assert line.cost == price_of(stack.card, openai.log[0])


async def test_a_drain_ends_after_its_seconds(running: Running, openai: SimulatedOpenAI) -> None:
    async with running(openai.url, disconnect={"drain_s": 1}) as stack:
        await leave_after_eleven_words(stack, stack.key)
        assert await seconds_to_the_end(openai) > 0.5
        assert openai.log[0].outcome is Outcome.CLIENT_GONE
        line = await stack.line()
        assert (line.outcome, line.flags, line.usage.output) == ("estimated", "cut", 11)
        assert line.cost == price_of_words(stack, 11)


async def test_no_more_calls_than_allowed_are_drained_at_once(running: Running, openai: SimulatedOpenAI) -> None:
    async with running(openai.url, disconnect={"drains_max": 1}) as stack:
        await leave_after_eleven_words(stack, stack.key, "tokens=60,rate=60")
        await until(lambda: stack.gateway.relay.draining == 1)
        await leave_after_eleven_words(stack, stack.key)
        assert sorted(line.outcome for line in await stack.lines()) == ["drained", "estimated"]
        assert stack.gateway.relay.draining == 0


async def test_cancelling_closes_upstream_at_once_and_charges_the_delivered_words(
    stack: Stack, openai: SimulatedOpenAI
) -> None:
    account = await cancelling(stack)
    await leave_after_eleven_words(stack, account.key)
    assert await seconds_to_the_end(openai) < DRAIN_S
    assert openai.log[0].outcome is Outcome.CLIENT_GONE
    line = await stack.line()
    assert (line.outcome, line.flags) == ("estimated", "cut")
    assert (line.usage.input, line.usage.output) == (HELLO_TOKENS, 11)
    assert line.cost == price_of_words(stack, 11)


async def test_cancelling_a_response_charges_the_delivered_words(stack: Stack, openai: SimulatedOpenAI) -> None:
    account = await cancelling(stack)
    async with Client.connect(stack.address) as client:
        client.writer.write(asking(account.key, "tokens=100,reasoning=0,stall=14", endpoint=RESPONSES))
        await openai.log.wait_until(lambda log: log.arrived == 1 and log[0].events == 14)
        words = openai.log[0].usage.completion
        for _ in range(words):
            await client.read_until(b"event: response.output_text.delta")
        await client.read_until(b"\n\n")
    assert await seconds_to_the_end(openai) < DRAIN_S
    line = await stack.line()
    assert (line.outcome, line.usage.output) == ("estimated", words)
    assert words > 0


async def test_cancelling_a_plain_call_closes_upstream_at_once_and_charges_what_was_answered(
    stack: Stack, openai: SimulatedOpenAI
) -> None:
    account = await cancelling(stack)
    # Before the head nobody can know whether upstream began; within the body it did.
    for orders, bytes_sent, outcome in (("stall", 0, "void"), ("tokens=500,stall=20", 20, "estimated")):

        def is_asked(log: RequestLog, arrived: int = len(openai.log), bytes_sent: int = bytes_sent) -> bool:
            return log.arrived > arrived and log[-1].body_bytes > 0 and log[-1].answer_bytes == bytes_sent

        async with Client.connect(stack.address) as client:
            client.writer.write(asking(account.key, orders, stream=False))
            await openai.log.wait_until(is_asked)
        assert await seconds_to_the_end(openai, len(openai.log)) < DRAIN_S
        assert openai.log[-1].outcome is Outcome.CLIENT_GONE
        line = (await stack.lines())[-1]
        assert (line.outcome, line.flags) == (outcome, "cut")
        assert line.cost == (0 if outcome == "void" else price_of_words(stack, 0))


async def test_who_leaves_a_free_call_closes_upstream(stack: Stack, openai: SimulatedOpenAI) -> None:
    async with Client.connect(stack.address) as client:
        client.writer.write(
            request("/v1/models", stack.key, fields=[(b"x-sandbox-scenario", b"stall=5")], method="GET")
        )
        await client.read_until(b"\r\n\r\n")
    assert await seconds_to_the_end(openai) < DRAIN_S
    assert openai.log[0].outcome is Outcome.CLIENT_GONE


async def test_who_leaves_before_upstream_was_asked_is_charged_nothing(stack: Stack, openai: SimulatedOpenAI) -> None:
    async with aclosing(Redis.from_url(stack.config.redis_url)) as redis:
        await redis.client_pause(2000, all=False)
        async with Client.connect(stack.address) as client:
            client.writer.write(asking(stack.key, ""))
            await until(lambda: stack.gateway.server.running == 1)
        await until(lambda: stack.gateway.server.connections == 0)
        await redis.client_unpause()
    assert (await stack.line()).outcome == "void"
    assert len(openai.log) == 0


async def test_who_leaves_with_the_last_byte_is_charged_once(stack: Stack, openai: SimulatedOpenAI) -> None:
    async with Client.connect(stack.address) as client:
        client.writer.write(asking(stack.key, "tokens=5"))
        await client.read_until(b"[DONE]\n\n")
    line = await stack.line()
    assert line.outcome in ("exact", "drained")
    assert line.cost == price_of(stack.card, openai.log[0])
