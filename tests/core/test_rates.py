"""Pricing: usage times rate, and which rate of a card a call gets."""

from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls.usage import Usage
from gateway.core.money import UCR_PER_CREDIT
from gateway.core.pricing.rates import (
    TOKENS_PER_RATE,
    Bracket,
    ModelRates,
    Rate,
    RateCard,
    Rounding,
    UnsoldTier,
    cost_exact,
    price,
    priced_tier,
)

COUNTS = st.integers(0, 10_000_000)
RATES = st.builds(Rate, *[st.integers(0, 10**13)] * 9)
USAGES = st.builds(Usage, *[COUNTS] * 9)


def flat(rate: int) -> Rate:
    return Rate(*[rate] * 9)


LONG = ModelRates(
    model="long",
    tiers={
        "default": (Bracket(0, flat(10)), Bracket(272_001, flat(20))),
        "flex": (Bracket(0, flat(5)),),
    },
    context_tokens=1_050_000,
    output_tokens_max=128_000,
)
CARD = RateCard(
    name="2026-11-21-test",
    hash="0123456789abcdef" * 4,
    effective_from=date(2026, 11, 21),
    rounding=Rounding.EXACT,
    rows={"long": LONG, "gpt-4o": LONG, "gpt-4o-2024-05-13": LONG, "ft:gpt-4o:acme::1": LONG},
    aliases={"long-latest": "long"},
)


@given(USAGES, RATES)
def test_a_price_is_the_sum_of_its_disjoint_classes_rounded_once(usage: Usage, rate: Rate) -> None:
    millionths = sum(getattr(usage, name) * getattr(rate, name) for name in Rate.__struct_fields__)
    cost = cost_exact(usage, rate)
    assert abs(cost * TOKENS_PER_RATE - millionths) * 2 <= TOKENS_PER_RATE


@given(USAGES, RATES, st.sampled_from(Rate.__struct_fields__), st.integers(0, 1_000))
def test_splitting_a_call_into_millions_of_tokens_changes_nothing(
    usage: Usage, rate: Rate, name: str, millions: int
) -> None:
    more = Usage(**{field: getattr(usage, field) for field in Rate.__struct_fields__ if field != name})
    whole = Usage(**{name: millions * TOKENS_PER_RATE})
    both = Usage(
        **{
            field: getattr(more, field) + getattr(whole, field)  # disjoint: one of them is 0 for every class
            for field in Rate.__struct_fields__
        }
    )
    assert cost_exact(both, rate) == cost_exact(more, rate) + cost_exact(whole, rate)


@given(USAGES, RATES)
def test_rounding_up_adds_less_than_a_credit_and_says_how_much(usage: Usage, rate: Rate) -> None:
    up = price(usage, rate, Rounding.CEIL)
    assert up.cost % UCR_PER_CREDIT == 0
    assert 0 <= up.rounding < UCR_PER_CREDIT
    assert up.cost - up.rounding == price(usage, rate, Rounding.EXACT).cost


@pytest.mark.parametrize(
    ("asked", "tier"),
    [
        (None, "default"),
        ("auto", "default"),
        ("default", "default"),
        ("scale", "default"),
        ("flex", "flex"),
        ("priority", "priority"),
        ("fast", "priority"),
    ],
)
def test_every_service_tier_is_priced_as_the_table_says(asked: str | None, tier: str) -> None:
    assert priced_tier(asked) == tier


@pytest.mark.parametrize("asked", ["ultrafast", "", "batch", "FLEX", "x" * 10_000])
def test_an_unknown_service_tier_has_no_price(asked: str) -> None:
    with pytest.raises(UnsoldTier) as caught:
        priced_tier(asked)
    assert len(str(caught.value)) < 120


def test_auto_means_what_the_project_is_set_to() -> None:
    assert priced_tier("auto", auto_tier="priority") == priced_tier(None, auto_tier="priority") == "priority"
    assert priced_tier("default", auto_tier="priority") == "default"


def test_a_model_without_the_tier_is_not_priced_at_another() -> None:
    with pytest.raises(UnsoldTier, match="priority"):
        CARD.rate(LONG, "fast", 1)


@pytest.mark.parametrize(
    ("tokens", "rate", "key"),
    [(0, 10, "long/default"), (272_000, 10, "long/default"), (272_001, 20, "long/default/272001")],
)
def test_a_long_context_prices_the_whole_call(tokens: int, rate: int, key: str) -> None:
    assert CARD.rate(LONG, None, tokens) == flat(rate)
    assert CARD.rate_key(LONG, None, tokens) == key


def test_a_tier_without_long_context_keeps_its_rate() -> None:
    assert CARD.rate(LONG, "flex", 1_000_000) == flat(5)
    assert CARD.rate_key(LONG, "flex", 1_000_000) == "long/flex"


@pytest.mark.parametrize(
    "model", ["long", "long-latest", "long-2027-01-31", "gpt-4o", "gpt-4o-2024-08-06", "ft:gpt-4o:acme::1"]
)
def test_an_id_an_alias_and_a_dated_snapshot_are_found(model: str) -> None:
    assert CARD.find(model) is not None


@pytest.mark.parametrize(
    "model",
    [
        "",
        "Long",
        "long-2",
        "long-2027-01-3",
        "long-２０２７-01-31",
        "long2027-01-31",
        "-2024-08-06",
        "gpt-4o-mini",
        "ft:gpt-4o",
        "ft:gpt-4o:acme::1-2024-08-06",
        "ft:gpt-4o-2024-08-06:acme::1",
        "long-2027-01-31\n",
    ],
)
def test_no_price_is_guessed_for_another_id(model: str) -> None:
    assert CARD.find(model) is None


def test_a_version_names_the_card_and_its_text() -> None:
    assert CARD.version == "2026-11-21-test@0123456789ab"


def row(model: str, **tiers: tuple[Bracket, ...]) -> ModelRates:
    return ModelRates(model=model, tiers=tiers, context_tokens=1000, output_tokens_max=1000)


@pytest.mark.parametrize(
    ("tier", "other", "is_no_dearer"),
    [
        (None, "same", True),
        (None, "cheap", True),
        (None, "dear", False),
        (None, "dear-output", False),
        (None, "dear-when-long", False),
        (None, "unheard-of", False),
        ("flex", "same", False),  # it is served in the default tier
        ("flex", "cheap", True),
        ("auto", "cheap", True),
        ("priority", "cheap", False),  # it is not sold so, and so is refused
    ],
)
def test_a_model_is_no_dearer_if_none_of_its_tokens_ever_is(tier: str | None, other: str, is_no_dearer: bool) -> None:
    asked = row("asked", default=(Bracket(0, flat(10)),), flex=(Bracket(0, flat(5)),))
    rows = (
        asked,
        row("same", default=(Bracket(0, flat(10)),), flex=(Bracket(0, flat(1)),)),
        row("cheap", default=(Bracket(0, flat(5)),)),
        row("dear", default=(Bracket(0, flat(11)),)),
        row("dear-output", default=(Bracket(0, msgspec.structs.replace(flat(1), output=11)),)),
        row("dear-when-long", default=(Bracket(0, flat(9)), Bracket(500, flat(18)))),
    )
    card = RateCard("card", "ab" * 32, date(2026, 11, 21), Rounding.EXACT, {each.model: each for each in rows}, {})
    assert card.is_no_dearer(asked, tier, "default", other) is is_no_dearer
    if tier is None:  # nor in a project whose tier none of them has
        assert card.is_no_dearer(asked, tier, "priority", other) is is_no_dearer
