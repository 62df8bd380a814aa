"""Estimates: an honest upstream's usage never costs more than was held, whatever the call asks for."""

import base64
from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls.calls import Call, Endpoint, parse
from gateway.core.calls.estimate import (
    Basis,
    Estimate,
    affordable_output_limit,
    estimate_cheap,
    estimate_exact,
    plausible,
    provisional_cost,
    texts_to_count,
)
from gateway.core.calls.usage import AbsurdUsage, Usage
from gateway.core.money import AMOUNT_UCR_MAX, UCR_PER_CREDIT
from gateway.core.pricing.rates import Bracket, ModelRates, Rate, RateCard, Rounding, UnsoldTier, price

# $ per million tokens ×4, of a model with every kind of price: cached, written, audio, tiers, long context.
BASE = Rate(10_000_000_000, 1_000_000_000, 12_500_000_000, 128_000_000_000, 11_000_000_000, *[40_000_000_000] * 4)
LONG = Rate(20_000_000_000, 2_000_000_000, 25_000_000_000, 128_000_000_000, 22_000_000_000, *[60_000_000_000] * 4)
PLAIN = Rate(*[10_000_000_000] * 5, *[40_000_000_000] * 4)
CHEAP, DEAR = Rate(*[5_000_000_000] * 5, *[20_000_000_000] * 4), Rate(*[20_000_000_000] * 5, *[80_000_000_000] * 4)

RICH = ModelRates(
    "rich",
    {
        "default": (Bracket(0, BASE), Bracket(272_001, LONG)),
        "flex": (Bracket(0, CHEAP),),
        "priority": (Bracket(0, DEAR),),
    },
    1_050_000,
    128_000,
    1_445,
)
SIMPLE = ModelRates("simple", {"default": (Bracket(0, PLAIN),)}, 128_000, 16_384, 1_445)
EMBEDDING = ModelRates("embedding", {"default": (Bracket(0, PLAIN),)}, 8_192, 0)
ROWS = {row.model: row for row in (RICH, SIMPLE, EMBEDDING)}
CARD = RateCard("2026-11-21-test", "ab" * 32, date(2026, 11, 21), Rounding.EXACT, ROWS, {})
CEIL = msgspec.structs.replace(CARD, rounding=Rounding.CEIL)


def call(endpoint: Endpoint = Endpoint.CHAT, **fields: Any) -> Call:
    return parse(endpoint, msgspec.json.encode({"model": "simple"} | fields))


def chat(content: Any = "hi", **fields: Any) -> Call:
    return call(messages=[{"role": "user", "content": content}], **fields)


def test_the_bytes_of_the_body_bound_its_tokens() -> None:
    asked = chat("hello", max_tokens=100)
    estimate = estimate_cheap(asked, SIMPLE, CARD)
    assert estimate == Estimate(
        amount=estimate.input_tokens_max * 10_000 + 100 * 40_000,
        input_tokens_max=len(asked.body) + 16,
        output_tokens_max=100,
        basis=Basis.BYTES,
    )


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 16_384),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 9_999_999}, 16_384),
        ({"max_tokens": 5, "n": 3}, 15),
        ({"n": 3}, 3 * 16_384),
    ],
)
def test_output_is_bounded_by_the_limit_for_each_choice(fields: dict[str, int], tokens: int) -> None:
    assert estimate_cheap(chat(**fields), SIMPLE, CARD).output_tokens_max == tokens


def test_rejected_predictions_are_held_beside_the_limit() -> None:
    predicted = chat(max_tokens=5, prediction={"type": "content", "content": "x" * 1_000})
    assert estimate_cheap(predicted, SIMPLE, CARD).output_tokens_max >= 1_005


def test_embeddings_have_no_output_and_may_pass_one_context_window() -> None:
    many = call(Endpoint.EMBEDDINGS, input=[[1, 2, 3]] * 10_000)
    estimate = estimate_cheap(many, EMBEDDING, CARD)
    assert (estimate.output_tokens_max, estimate.basis) == (0, Basis.BYTES)
    assert estimate.input_tokens_max > 30_000
    assert estimate_exact(many, EMBEDDING, CARD, 0).input_tokens_max >= 30_000


def test_what_the_body_does_not_show_costs_the_context_window() -> None:
    follow_up = call(Endpoint.RESPONSES, input="go on", previous_response_id="resp_1")
    reference = call(Endpoint.RESPONSES, input=[{"type": "item_reference", "id": "msg_1"}])
    for unknown in (follow_up, reference):
        estimate = estimate_cheap(unknown, SIMPLE, CARD)
        assert (estimate.input_tokens_max, estimate.basis) == (128_000, Basis.CONTEXT)
        assert estimate_exact(unknown, SIMPLE, CARD, 1) == estimate


def test_no_body_costs_more_input_than_the_context_window() -> None:
    estimate = estimate_cheap(chat("x" * 1_000_000), SIMPLE, CARD)
    assert (estimate.input_tokens_max, estimate.basis) == (128_000, Basis.CONTEXT)


def test_an_image_costs_its_bound_and_not_its_bytes() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    estimate = estimate_cheap(chat([image]), SIMPLE, CARD)
    assert estimate.basis is Basis.PARTS
    assert 1_445 < estimate.input_tokens_max < 1_445 + 300


def test_audio_costs_by_its_length() -> None:
    data = base64.b64encode(b"ID3" + bytes(48_000)).decode()
    estimate = estimate_cheap(
        chat([{"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}]), RICH, CARD
    )
    assert estimate.basis is Basis.PARTS
    assert 4_000 < estimate.input_tokens_max < 4_400


def test_long_context_is_held_as_soon_as_it_can_be_reached() -> None:
    short, long = (estimate_cheap(chat("x" * size, max_tokens=1), RICH, CARD) for size in (200_000, 272_001))
    assert short.amount < long.amount / 1.25
    assert long.amount >= 272_001 * LONG.input_cache_write // 1_000_000


@pytest.mark.parametrize(
    ("tier", "output_rate"), [("flex", 40), ("default", 40), ("priority", 80), ("fast", 80), ("scale", 40)]
)
def test_the_asked_tier_is_held_but_never_less_than_the_default_one(tier: str, output_rate: int) -> None:
    estimate = estimate_cheap(chat(max_tokens=1_000, service_tier=tier), RICH, CARD)
    assert estimate.amount >= 1_000 * output_rate * 1_000


def test_auto_can_mean_a_dearer_tier() -> None:
    assert estimate_cheap(chat(), RICH, CARD, auto_tier="priority").amount > estimate_cheap(chat(), RICH, CARD).amount


@pytest.mark.parametrize("tier", ["priority", "flex", "ultrafast", ""])
def test_a_tier_that_is_not_sold_has_no_estimate(tier: str) -> None:
    with pytest.raises(UnsoldTier):
        estimate_cheap(chat(service_tier=tier), SIMPLE, CARD)


def test_a_completion_that_names_no_limit_is_held_for_the_16_tokens_that_it_gets() -> None:
    bounds = [
        estimate_cheap(parse(Endpoint.COMPLETIONS, body), SIMPLE, CARD).output_tokens_max
        for body in (b'{"model":"m"}', b'{"model":"m","n":3}', b'{"model":"m","max_tokens":null}')
    ]
    assert bounds == [16, 48, SIMPLE.output_tokens_max]


def test_an_estimate_never_outgrows_what_redis_can_compare() -> None:
    body = b'{"model":"rich","n":128,"max_tokens":1000000,"prompt":[' + b'"",' * 200_000 + b'""]}'
    assert estimate_cheap(parse(Endpoint.COMPLETIONS, body), RICH, CARD).amount == AMOUNT_UCR_MAX


@given(st.text(max_size=200), st.lists(st.text(max_size=50), max_size=4))
def test_the_exact_bound_is_never_above_the_cheap_one(text: str, parts: list[str]) -> None:
    asked = chat([{"type": "text", "text": part} for part in [text, *parts]])
    texts = texts_to_count(asked)
    assert text in texts
    tokens = sum(len(each.encode()) for each in texts)
    cheap, exact = estimate_cheap(asked, SIMPLE, CARD), estimate_exact(asked, SIMPLE, CARD, tokens)
    assert exact.input_tokens_max <= cheap.input_tokens_max
    assert exact.amount <= cheap.amount
    assert estimate_exact(asked, SIMPLE, CARD, len(text) // 4).basis in (Basis.TOKENS, Basis.BYTES)


def test_counting_shrinks_the_hold_of_prose() -> None:
    asked = chat("the quick brown fox " * 500, max_tokens=1)
    exact = estimate_exact(asked, SIMPLE, CARD, 2_001 + 1)
    assert exact.basis is Basis.TOKENS
    assert 2_002 <= exact.input_tokens_max < 2_100
    assert exact.input_tokens_max * 4 < estimate_cheap(asked, SIMPLE, CARD).input_tokens_max


def test_tools_are_held_by_their_bytes_even_when_text_is_counted() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 1_000}}]
    asked = chat("words " * 1_000, tools=tools)
    assert (
        estimate_exact(asked, SIMPLE, CARD, 1_000).input_tokens_max >= 2_000 + len(msgspec.json.encode(tools)) - 1_000
    )


@st.composite
def answers(draw: st.DrawFn) -> tuple[Call, str | None, Estimate, Usage, RateCard]:
    """A call, its estimate and a usage that an honest upstream could report for it, in a tier it could have served."""
    card = draw(st.sampled_from([CARD, CEIL]))
    tier = draw(st.sampled_from([None, "auto", "default", "flex", "priority", "fast", "scale"]))
    size = draw(st.sampled_from([0, 10, 271_800, 272_100, 400_000, 2_000_000]))
    asked = chat("x" * size, service_tier=tier, max_tokens=draw(st.integers(1, 200_000)), n=draw(st.integers(1, 4)))
    estimate = estimate_cheap(asked, RICH, card)
    served = draw(st.sampled_from([tier, "default", None]))
    into = draw(st.integers(0, estimate.input_tokens_max))
    out = draw(st.integers(0, estimate.output_tokens_max))
    cuts = sorted(draw(st.integers(0, into)) for _ in range(4))
    ends = sorted(draw(st.integers(0, out)) for _ in range(3))
    pieces = [high - low for low, high in zip([0, *cuts], [*cuts, into], strict=True)]
    pieces += [high - low for low, high in zip([0, *ends], [*ends, out], strict=True)]
    return asked, served, estimate, Usage(*pieces), card


@given(answers())
def test_a_capture_is_never_above_the_hold(answer: tuple[Call, str | None, Estimate, Usage, RateCard]) -> None:
    _, served, estimate, usage, card = answer
    cost = price(usage, card.rate(RICH, served, usage.input_total), card.rounding).cost
    assert cost <= estimate.amount
    plausible(usage, estimate, RICH)
    assert provisional_cost(card, RICH, served, usage.input_total, usage.output_total).cost <= estimate.amount


@given(st.integers(1, 10**10), st.integers(1, 5), st.sampled_from([CARD, CEIL]), st.sampled_from([None, "priority"]))
def test_the_affordable_limit_is_the_largest_that_fits(
    available: int, choices: int, card: RateCard, tier: str | None
) -> None:
    def ask(limit: int) -> Call:
        return msgspec.structs.replace(chat(n=choices, service_tier=tier), output_limit=limit)

    asked = ask(RICH.output_tokens_max)
    limit = affordable_output_limit(available, estimate_cheap(asked, RICH, card), asked, RICH, card)
    if limit:
        assert estimate_cheap(ask(limit), RICH, card).amount <= available
    if limit < RICH.output_tokens_max:
        assert estimate_cheap(ask(limit + 1), RICH, card).amount > available


def test_embeddings_have_no_affordable_limit() -> None:
    asked = call(Endpoint.EMBEDDINGS, input="hi")
    assert affordable_output_limit(10**12, estimate_cheap(asked, EMBEDDING, CARD), asked, EMBEDDING, CARD) == 0


def test_progress_is_priced_as_plain_text() -> None:
    assert provisional_cost(CARD, RICH, None, 1_000, 10).cost == 1_000 * 10_000 + 10 * 40_000
    rounded = provisional_cost(CEIL, RICH, "flex", 1_000, 10)
    assert rounded.cost == 6 * UCR_PER_CREDIT
    assert rounded.rounding == rounded.cost - (1_000 * 5_000 + 10 * 20_000)


@pytest.mark.parametrize(
    ("usage", "absurd"),
    [
        (Usage(input=256_000, output=32_768), False),
        (Usage(input=200_000, input_cached=56_001), True),
        (Usage(output_reasoning=32_769), True),
        (Usage(input=10**15), True),
    ],
)
def test_usage_beyond_twice_every_bound_is_absurd(usage: Usage, absurd: bool) -> None:
    estimate = estimate_cheap(chat(max_tokens=5), SIMPLE, CARD)
    if absurd:
        with pytest.raises(AbsurdUsage, match="at most"):
            plausible(usage, estimate, SIMPLE)
    else:
        plausible(usage, estimate, SIMPLE)
