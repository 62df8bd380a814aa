"""Reading a rate card: what it refuses, and that it says why in one line."""

from decimal import Decimal

import pytest

from gateway.core.pricing.rate_card import RateCardError, exact_rate, load_card
from gateway.core.pricing.rates import Rounding

NAME = "2026-11-21-test"
RATES = """
input_tokens_min = 0
input             = { ucr = 10_000_000_000, usd = "2.5" }
input_cached      = { ucr = 5_000_000_000, usd = "1.25" }
input_cache_write = { ucr = 10_000_000_000, as = "input" }
input_audio       = { ucr = 10_000_000_000, as = "input" }
input_image       = { ucr = 10_000_000_000, as = "input" }
output            = { ucr = 40_000_000_000, usd = "10" }
output_reasoning  = { ucr = 40_000_000_000, as = "output" }
output_audio      = { ucr = 40_000_000_000 }
output_image      = { ucr = 40_000_000_000, as = "output" }
"""
MODEL = f"""
[models."gpt-4o"]
aliases = ["gpt-4o-latest"]
context_tokens = 128_000
output_tokens_max = 16_384
image_tokens_max = 1_445
markup = "4"

[[models."gpt-4o".default]]
{RATES}
"""
TEXT = f"""
effective_from = 2026-11-21
rounding = "exact"
{MODEL}
"""


def test_a_card_is_read_with_its_hash() -> None:
    card = load_card(TEXT, NAME)
    row = card.find("gpt-4o-latest")
    assert row is not None
    assert (row.model, row.context_tokens, row.output_tokens_max, row.image_tokens_max) == (
        "gpt-4o",
        128_000,
        16_384,
        1_445,
    )
    assert card.rate(row, None, 1).input_cached == 5_000_000_000
    assert card.rounding is Rounding.EXACT
    assert card.version == f"{NAME}@{card.hash[:12]}"
    assert load_card(TEXT + "#", NAME).hash != card.hash


@pytest.mark.parametrize(
    ("old", "new", "key", "remedy"),
    [
        ("rounding =", "roundin =", "roundin", "not a known key"),
        ('"exact"', '"up"', "rounding", "ceil"),
        ("= 2026-11-21", '= "2026-11-21"', "effective_from", "must be a date"),
        ("= 2026-11-21", "= 2026-11-21T00:00:00Z", "effective_from", "must be a date"),
        ("effective_from", "[oops", "the file", "TOML"),
        ("context_tokens = 128_000", "", "context_tokens", "missing"),
        ("context_tokens = 128_000", "context_tokens = true", "context_tokens", "whole number"),
        ("context_tokens = 128_000", "context_tokens = 0", "context_tokens", "whole number"),
        ("output_tokens_max = 16_384", "output_tokens_max = -1", "output_tokens_max", "whole number"),
        ("5_000_000_000", "-1", "input_cached.ucr", "whole number"),
        ("5_000_000_000", "5e9", "input_cached.ucr", "whole number"),
        ("5_000_000_000", "99_000_000_000_000_000", "input_cached.ucr", "whole number"),
        ("5_000_000_000", "5_000_000_001", "input_cached.usd", "5000000000"),
        ('"1.25"', "1.25", "input_cached.usd", "string"),
        ('"1.25"', '"NaN"', "input_cached.usd", "string"),
        ('"1.25"', '"1.2500000001"', "input_cached.usd", "not a whole number"),
        ('"1.25"', '"1.25000000000000000000001"', "input_cached.usd", "string"),
        ('"1.25"', '"1e-999999999"', "input_cached.usd", "string"),
        ('markup = "4"', "", "input.usd", "markup"),
        ('markup = "4"', 'markup = "-4"', "markup", "number"),
        ('"1.25"', '"1.25", as = "input"', "input_cached", "not both"),
        ('usd = "1.25"', 'as = "input"', "input_cached.as", "make them equal"),
        ('usd = "1.25"', 'as = "input_cached"', "input_cached.as", "another class"),
        ('usd = "1.25"', 'eur = "1.25"', "eur", "not a known key"),
        ("input_cached      =", "#", "input_cached", "missing"),
        (".default]]", ".flex]]", "gpt-4o", "default"),
        (".default]]", ".cheap]]", "cheap", "not a known key"),
        ("[[models.", "#", 'models."gpt-4o".input', "not a known key"),
        ("input_tokens_min = 0", "input_tokens_min = 1", "input_tokens_min", "must be 0"),
        ('["gpt-4o-latest"]', '["gpt-4o"]', "aliases", "named twice"),
        ('["gpt-4o-latest"]', '["a", "a"]', "aliases", "named twice"),
        ('["gpt-4o-latest"]', "[1]", "aliases", "array"),
        (MODEL, "", "models", "missing"),
        (MODEL, "[models]", "models", "at least one"),
        (MODEL, "models = 1", "models", "table"),
    ],
)
def test_a_bad_card_is_refused_in_one_line_that_names_the_key(old: str, new: str, key: str, remedy: str) -> None:
    assert old in TEXT
    with pytest.raises(RateCardError) as caught:
        load_card(TEXT.replace(old, new, 1), NAME)
    message = str(caught.value)
    assert message.startswith(f"{NAME}.toml: ")
    assert key in message
    assert remedy in message
    assert "\n" not in message


@pytest.mark.parametrize("least", [0, 5])
def test_brackets_must_ascend(least: int) -> None:
    more = f'[[models."gpt-4o".default]]\n{RATES}'.replace("input_tokens_min = 0", "input_tokens_min = 5")
    again = more.replace("input_tokens_min = 5", f"input_tokens_min = {least}")
    load_card(TEXT + more, NAME)
    with pytest.raises(RateCardError, match=r"default\[2\].input_tokens_min: must be larger"):
        load_card(TEXT + more + again, NAME)


def test_two_models_cannot_share_an_alias() -> None:
    other = MODEL.replace('"gpt-4o"', '"gpt-4o-mini"')
    with pytest.raises(RateCardError, match="'gpt-4o-latest' is named twice"):
        load_card(TEXT + other, NAME)


def test_deep_nesting_is_refused_too() -> None:
    with pytest.raises(RateCardError):
        load_card("x = " + "[" * 100_000, NAME)


def test_a_rate_that_is_not_whole_is_never_rounded() -> None:
    with pytest.raises(ValueError, match="not a whole number"):
        exact_rate(Decimal("1.00000000000000000000000000000001"), Decimal(4))
