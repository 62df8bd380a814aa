"""What is held of a sliced call pays for whatever of it was delivered."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls.calls import Call, Endpoint, parse
from gateway.core.calls.estimate import estimate_cheap
from gateway.core.calls.slices import Sizes, Sliced, slices_of
from gateway.core.calls.usage import Usage
from gateway.core.pricing.rates import RateCard, price
from tests.core.test_estimate import CARD, CEIL, SIMPLE

SIZES = Sizes(models=("simpl?",), output_tokens=2000, output_tokens_min=100, ahead_tokens=500)


def call(endpoint: Endpoint = Endpoint.CHAT, **fields: Any) -> Call:
    return parse(endpoint, msgspec.json.encode({"model": "simple", "stream": True} | fields))


def sliced_or_none(asked: Call, sizes: Sizes = SIZES, card: RateCard = CARD) -> Sliced | None:
    return slices_of(asked, SIMPLE, card, estimate_cheap(asked, SIMPLE, card), sizes)


def sliced(asked: Call, sizes: Sizes = SIZES, card: RateCard = CARD) -> Sliced:
    found = sliced_or_none(asked, sizes, card)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("asked", "can_be"),
    [
        (call(messages=[]), True),
        (call(Endpoint.RESPONSES, input="hi"), True),
        (call(messages=[], n=2, max_tokens=1001), True),
        (call(messages=[], max_tokens=2000), False),  # no longer than a slice
        (call(messages=[], stream=False), False),
        (call(Endpoint.COMPLETIONS, prompt="hi", max_tokens=9000), False),  # may be the best of many unseen
        (call(messages=[], prediction={"type": "content", "content": "rejected"}), False),
    ],
)
def test_long_streams_that_show_what_they_cost_are_sliced(asked: Call, can_be: bool) -> None:
    assert (sliced_or_none(asked) is not None) == can_be


def test_a_model_that_may_think_unseen_is_not_sliced() -> None:
    assert sliced_or_none(call(messages=[]), msgspec.structs.replace(SIZES, models=("gpt-4o*",))) is None


def test_slices_follow_each_other_up_to_the_whole() -> None:
    found = sliced(call(messages=[], max_tokens=5000))
    assert [found.next(covered) for covered in (0, 2000, 3500, 4000, 5000)] == [2000, 4000, 5000, 5000, 5000]


def test_a_slice_is_asked_for_before_it_is_needed() -> None:
    found = sliced(call(messages=[], max_tokens=5000))
    hidden = found.hidden_tokens
    assert found.wants_more(2000, 1501 - hidden)
    assert not found.wants_more(2000, 1500 - hidden)
    assert found.covers(2000, 2000 - hidden)
    assert not found.covers(2000, 2001 - hidden)


def test_nothing_bounds_an_answer_that_is_held_whole() -> None:
    found = sliced(call(messages=[], max_tokens=5000))
    assert found.covers(5000, 6000)
    assert not found.wants_more(5000, 4999)


def test_what_is_left_is_a_slice_only_if_it_is_worth_one() -> None:
    found = sliced(call(messages=[], max_tokens=5000))
    assert found.fitting(found.estimate(2100).amount, 2000) == 2100
    assert found.fitting(found.estimate(2099).amount, 2000) == 0
    assert found.fitting(found.estimate(5000).amount * 2, 2000) == 5000
    assert found.fitting(0, 0) == 0


@given(
    st.integers(0, 20_000),
    st.integers(0, 20_000),
    st.integers(0, 10**12),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([CARD, CEIL]),
)
def test_no_answer_costs_more_than_its_slices_hold(
    covered: int, delivered: int, amount: int, choices: int, has_tools: bool, card: RateCard
) -> None:
    tools: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "f"}}]} if has_tools else {}
    found = sliced(call(messages=[{"role": "user", "content": "hi"}], n=choices, **tools), card=card)
    fitting = found.fitting(amount, covered)
    if fitting:
        assert covered + SIZES.output_tokens_min <= fitting
        assert found.estimate(fitting).amount <= amount
    if covered < found.whole.output_tokens_max and found.covers(covered, delivered):
        usage = Usage(input=found.whole.input_tokens_max, output=delivered + found.hidden_tokens)
        rate = card.rate(found.row, None, usage.input_total)
        assert price(usage, rate, card.rounding).cost <= found.estimate(covered).amount
    assert found.estimate(found.next(covered)).amount <= max(found.whole.amount, found.estimate(covered).amount)
