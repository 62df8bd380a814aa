"""Prices worked out a second time, from the rate card's text and the upstream's own log, in fractions.

Nothing of `gateway` is used here: what agrees with this agrees with the card as its reader understands it.
"""

import re
import tomllib
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

CARDS = Path(__file__).parents[2] / "config" / "rates"
TIERS = {"": "default", "auto": "default", "scale": "default", "fast": "priority"}


def newest_card() -> dict[str, Any]:
    card = tomllib.loads(max(CARDS.glob("*.toml")).read_text(encoding="utf-8"))
    assert card["rounding"] == "exact"
    return card


def classes_of_log(usage: dict[str, int]) -> dict[str, int]:
    """The upstream's nested counts, each token once; what its cache held or took is text."""
    text = usage["prompt"] - usage["prompt_audio"] - usage["prompt_image"]
    return {
        "input": text - usage["cached"] - usage["cache_write"],
        "input_cached": usage["cached"],
        "input_cache_write": usage["cache_write"],
        "input_audio": usage["prompt_audio"],
        "input_image": usage["prompt_image"],
        "output": usage["completion"] - usage["reasoning"] - usage["completion_audio"],
        "output_reasoning": usage["reasoning"],
        "output_audio": usage["completion_audio"],
    }


def price_ucr(card: dict[str, Any], model: str, tier: str, counts: dict[str, int]) -> int:
    """What so many tokens of each class cost, in µcr, a half rounded up once."""
    assert all(count >= 0 for count in counts.values()), counts
    row = _row(card["models"], model)
    into = sum(count for name, count in counts.items() if name.startswith("input"))
    brackets = row[TIERS.get(tier, tier)]
    rates = [bracket for bracket in brackets if bracket["input_tokens_min"] <= into][-1]
    exact = sum((Fraction(count * rates[name]["ucr"], 1_000_000) for name, count in counts.items()), Fraction(0))
    return floor(exact + Fraction(1, 2))


def _row(models: dict[str, Any], model: str) -> Any:
    for name in (model, re.sub(r"-\d{4}-\d{2}-\d{2}$", "", model)):
        for candidate, row in models.items():
            if name == candidate or name in row.get("aliases", ()):
                return row
    raise AssertionError(f"{model} is not on the card")
