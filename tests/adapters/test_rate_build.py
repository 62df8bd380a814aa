"""The shipped rate card: exactly what a fresh build gives, at exactly the library's prices times the markup."""

import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price

from gateway.adapters.openai.model_facts import BadModelFacts
from gateway.adapters.openai.rate_build import RateBuildError, build_card
from gateway.core.calls.usage import Usage
from gateway.core.pricing.rate_card import load_card
from gateway.core.pricing.rates import RateCard, Rounding, cost_exact, price

CONFIG = Path(__file__).parents[2] / "config"
FACTS = (CONFIG / "models.toml").read_text()
SHIPPED = CONFIG / "rates" / "2026-11-21-openai.toml"
ON_DATE = date(2026, 11, 21)
FOUR = Decimal(4)


@pytest.fixture(scope="module")
def card() -> RateCard:
    return load_card(SHIPPED.read_text(), SHIPPED.stem)


def test_the_shipped_card_is_what_a_build_gives_every_time() -> None:
    assert build_card(FOUR, {}, ON_DATE, FACTS) == build_card(FOUR, {}, ON_DATE, FACTS) == SHIPPED.read_text()


def test_the_library_is_not_loaded_before_a_build() -> None:
    code = "import sys, gateway.adapters.openai.rate_build; sys.exit('genai_prices' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


SAMPLES = [
    ("gpt-4o", None, Usage(input=600, input_cached=400, output=10)),
    ("gpt-4o-2024-08-06", "priority", Usage(input=600, input_cached=400, output=10)),
    ("gpt-4o-2024-05-13", None, Usage(input=1_000, output=10)),
    ("gpt-4o-mini", "fast", Usage(input=123, input_cached=877, output=45, output_reasoning=5)),
    ("gpt-4.1-nano-2025-04-14", None, Usage(input=7, input_cached=3, output=1)),
    ("gpt-5", "flex", Usage(input=1, input_cached=999, output=20, output_reasoning=480)),
    ("gpt-5-nano-2025-08-07", "flex", Usage(input=11, input_cached=13, output=17)),
    ("gpt-5.4", None, Usage(input=200_000, input_cached=72_000, output=1_000)),
    ("gpt-5.4", None, Usage(input=200_000, input_cached=72_001, output=1_000)),
    ("gpt-5.4", "flex", Usage(input=272_001, input_cached=500, output=1_000)),
    ("gpt-5.5", "priority", Usage(input=300_000, output=1_000)),
    ("gpt-5.6", None, Usage(input=10, input_cached=20, input_cache_write=30, output=40)),
    ("gpt-6.1-sol", "priority", Usage(input=272_001, input_cached=2, input_cache_write=3, output=4)),
    ("gpt-6-luna-2026-10-01", "flex", Usage(input=1_001, input_cached=2_003, input_cache_write=3_007, output=4_009)),
    ("gpt-audio", None, Usage(input=100, input_audio=200, output=30, output_audio=400)),
    ("o3", None, Usage(input=100, input_cached=100, output=10, output_reasoning=90)),
    ("o1-pro", None, Usage(input=100, output=1)),
    ("text-embedding-3-small", None, Usage(input=8_191)),
]


@pytest.mark.parametrize(("model", "tier", "usage"), SAMPLES)
def test_a_price_is_the_library_s_times_four(card: RateCard, model: str, tier: str | None, usage: Usage) -> None:
    theirs = calc_price(
        TheirUsage(
            input_tokens=usage.input_total,
            cache_read_tokens=usage.input_cached,
            cache_write_tokens=usage.input_cache_write,
            input_audio_tokens=usage.input_audio,
            output_tokens=usage.output_total,
            output_audio_tokens=usage.output_audio,
        ),
        model,
        provider_id="openai",
        genai_request_timestamp=datetime(2026, 11, 21, 12, tzinfo=UTC),
        price_context={"service_tier": tier} if tier else None,
    )
    row = card.find(model)
    assert row is not None
    ours = cost_exact(usage, card.rate(row, tier, usage.input_total))
    assert abs(Decimal(ours) - theirs.total_price * 4 * 1_000_000_000) <= Decimal("0.5")


def test_prices_worked_out_by_hand(card: RateCard) -> None:
    def cost(model: str, tier: str | None, usage: Usage) -> int:
        row = card.find(model)
        assert row is not None
        return price(usage, card.rate(row, tier, usage.input_total), Rounding.EXACT).cost

    # $2.50, $1.25, $10 a million → ×4 → 10,000, 5,000 and 40,000 µcr a token
    assert cost("gpt-4o", None, Usage(input=600, input_cached=400, output=10)) == 6_000_000 + 2_000_000 + 400_000
    # priority: $4.25, $2.125, $17
    assert cost("gpt-4o", "fast", Usage(input=600, input_cached=400, output=10)) == 10_200_000 + 3_400_000 + 680_000
    # flex: half of $1.25, $0.125, $10
    assert cost("gpt-5", "flex", Usage(input=100, input_cached=100, output=10)) == 250_000 + 25_000 + 200_000
    # above 272,000 tokens in: twice $2.50, one and a half times $15
    assert cost("gpt-5.4", None, Usage(input=272_001, output=2)) == 272_001 * 20_000 + 2 * 90_000
    # $0.02
    assert cost("text-embedding-3-small", None, Usage(input=3)) == 240
    # $0.0025 × 4 = 10 µcr a token; reasoning is output at $0.20 × 4
    assert cost("gpt-5-nano", "flex", Usage(input_cached=1, output_reasoning=1)) == 10 + 800


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4o-search-preview",
        "gpt-4o-mini-search-preview-2025-03-11",
        "gpt-5-search-api",
        "o3-deep-research",
        "gpt-4o-audio-preview",
        "gpt-image-1",
        "gpt-realtime",
        "tts-1",
        "whisper-1",
        "gpt-4o-transcribe",
        "omni-moderation-latest",
        "gpt-oss-120b",
        "ft:gpt-4o-2024-08-06:acme::1",
        "gpt-7",
    ],
)
def test_what_token_classes_cannot_price_is_not_sold(card: RateCard, model: str) -> None:
    assert card.find(model) is None


def test_every_class_of_tokens_costs_something_in_every_row(card: RateCard) -> None:
    for row in card.rows.values():
        for brackets in row.tiers.values():
            for bracket in brackets:
                assert min(getattr(bracket.rate, name) for name in bracket.rate.__struct_fields__) > 0, row.model


def test_every_row_knows_its_bounds(card: RateCard) -> None:
    for row in card.rows.values():
        assert row.context_tokens >= 2_049, row.model
        assert (row.output_tokens_max == 0) == ("embedding" in row.model), row.model
        assert row.output_tokens_max <= row.context_tokens, row.model


def test_a_markup_is_given_by_model_or_family_and_the_longest_name_wins() -> None:
    text = build_card(FOUR, {"gpt-4o": Decimal("1.5"), "gpt-4o-mini": Decimal(2)}, ON_DATE, FACTS)
    card = load_card(text, "2026-11-21-openai")
    inputs = {model: card.rate(card.rows[model], None, 1).input for model in ("gpt-4o", "gpt-4o-mini", "gpt-4.1")}
    assert inputs == {"gpt-4o": 3_750_000_000, "gpt-4o-mini": 300_000_000, "gpt-4.1": 8_000_000_000}
    assert card.rate(card.rows["gpt-4o-2024-05-13"], None, 1).input == 7_500_000_000


def test_prices_are_those_of_the_day() -> None:
    card = load_card(build_card(FOUR, {}, date(2026, 7, 1), FACTS), "2026-07-01-openai")
    assert card.rate(card.rows["gpt-5.6-luna"], None, 1).input == 4_000_000_000
    assert set(card.rows["gpt-4o"].tiers) == {"default"}  # tier prices are known from 2026-10-12


@pytest.mark.parametrize(
    ("markup", "overrides", "facts", "message"),
    [
        (Decimal("1.0000000001"), {}, FACTS, "not a whole number"),
        (FOUR, {"gpt-9": FOUR}, FACTS, "gpt-9"),
        (FOUR, {}, "", "context window"),
        (FOUR, {}, "[oops", "models.toml"),
        (FOUR, {}, '[families."gpt-4"]\ncontext = 1', 'families."gpt-4".context'),
        (FOUR, {}, '[families."gpt-4"]\ncontext_tokens = "1"', 'families."gpt-4".context_tokens'),
        (FOUR, {}, "families = 1", "families"),
        (FOUR, {}, '[families]\n"gpt-4" = 1', 'families."gpt-4"'),
        (Decimal(-1), {}, FACTS, "markup"),
        (Decimal("NaN"), {}, FACTS, "markup"),
        (FOUR, {"gpt-4o": Decimal(0)}, FACTS, "markup"),
    ],
)
def test_a_build_that_cannot_be_exact_says_what_to_change(
    markup: Decimal, overrides: dict[str, Decimal], facts: str, message: str
) -> None:
    with pytest.raises((RateBuildError, BadModelFacts), match=message):
        build_card(markup, overrides, ON_DATE, facts)
