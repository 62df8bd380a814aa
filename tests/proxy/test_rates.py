"""By which rates a call is charged: those of the tier that served it, on the card that its hold was opened under."""

import json

import pytest

from gateway.core.pricing.rate_card import load_card
from gateway.core.pricing.rates import RateCard
from gateway.core.pricing.schedule import Schedule
from gateway.sandbox.openai import SimulatedOpenAI, TokenCounts
from tests.proxy.prices import CHAT, EMBEDDINGS, ask_of, price_of_counts
from tests.proxy.stack import Running, Stack
from tests.proxy.wire import Client, ScriptedUpstream, answer, ask, request

FLEX = {"estimate": {"auto_service_tier": "flex"}}


@pytest.mark.parametrize(
    ("asked", "said", "tier"),
    [
        ({}, {}, "flex"),
        ({"service_tier": "auto"}, {}, "flex"),
        ({}, {"service_tier": "auto"}, "flex"),
        ({}, {"service_tier": "default"}, "default"),
        ({"service_tier": "default"}, {}, "default"),
        ({"service_tier": "priority"}, {}, "priority"),
    ],
)
async def test_an_answer_that_names_no_tier_is_priced_by_the_one_it_was_estimated_in(
    running: Running, upstream: ScriptedUpstream, asked: dict[str, str], said: dict[str, str], tier: str
) -> None:
    usage = {"usage": {"prompt_tokens": 1000, "completion_tokens": 500}}
    upstream.answer = answer(json.dumps({"model": "gpt-5-mini"} | said | usage).encode())
    async with running(upstream.url, **FLEX) as stack:
        body = ask_of(CHAT, model="gpt-5-mini", **asked)
        assert (await ask(stack.address, request(CHAT, stack.key, body))).status == 200
        line = await stack.line()
        assert line.rate_key == f"gpt-5-mini/{tier}"
        assert line.cost == price_of_counts(stack.card, "gpt-5-mini", tier, TokenCounts(prompt=1000, completion=500))


async def test_the_projects_tier_binds_no_model_that_does_not_have_it(
    running: Running, openai: SimulatedOpenAI
) -> None:
    async with running(openai.url, **FLEX) as stack:
        assert (await ask(stack.address, request(EMBEDDINGS, stack.key, ask_of(EMBEDDINGS)))).status == 200
        assert (await stack.line()).rate_key == "text-embedding-3-small/default"


class Turning(Schedule):
    """Two cards, of which the test says when the second takes over."""

    def __init__(self, first: RateCard, second: RateCard) -> None:
        super().__init__([first, second])
        self.in_force = first
        self.second = second

    def at(self, now_ms: int) -> RateCard:
        return self.in_force


async def with_second_card(stack: Stack) -> Turning:
    """A second card, recorded as a start records it; the running stack turns to it when told."""
    [(_, text)] = await stack.stores.accounts.recorded_cards()
    later = text.replace(f"effective_from = {stack.card.effective_from}", "effective_from = 2099-01-01")
    second = load_card(later, "2099-01-01-later")
    await stack.stores.accounts.record_card(second, later)
    return Turning(stack.card, second)


async def test_a_card_that_takes_over_holds_new_calls_and_leaves_open_holds_their_own(
    running: Running, openai: SimulatedOpenAI
) -> None:
    async with running(openai.url) as stack:
        cards = stack.cards = await with_second_card(stack)
        async with stack.running_gateway(), Client.connect(stack.address) as client:
            slow = [(b"x-sandbox-scenario", b"rate=100")]
            head = await client.begin(request(CHAT, stack.key, ask_of(CHAT, stream=True), slow))
            assert head.get(b"x-rate-card") == stack.card.version.encode()
            cards.in_force = cards.second
            got = await ask(stack.address, request(CHAT, stack.key, ask_of(CHAT)))
            assert got.get(b"x-rate-card") == cards.second.version.encode()
            await client.read_until(b"[DONE]")
            await stack.quiet()
        await stack.post()
        rows = await stack.stores.pool.fetch("SELECT rate_version, cost FROM call_usage ORDER BY request_id")
        assert [row["rate_version"] for row in rows] == [stack.card.version, cards.second.version]
