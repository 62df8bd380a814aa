"""What config/models.toml says of OpenAI's models by family: the bounds that the price library does not know."""

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.core.pricing.rates import IMAGE_TOKENS_MAX

FACTS = ("context_tokens", "output_tokens_max", "image_tokens_max")


class BadModelFacts(ValueError):
    """The file of model facts cannot be used: one line with the file, the key and the remedy."""


def read_facts(text: str) -> dict[str, dict[str, int]]:
    """Read the facts of each family from the text of models.toml; raises `BadModelFacts`."""
    try:
        families: Any = tomllib.loads(text).get("families", {})
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadModelFacts(f"models.toml: the file: is not valid TOML: {error}") from error
    if not isinstance(families, dict):
        raise BadModelFacts('models.toml: families: write a table for each family, [families."gpt-4o"]')
    for family, facts in families.items():
        if not isinstance(facts, dict):
            raise BadModelFacts(f'models.toml: families."{family}": must be a table')
        for key, value in facts.items():
            if key not in FACTS or not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise BadModelFacts(
                    f'models.toml: families."{family}".{key}: known are {", ".join(FACTS)}, each a number of tokens'
                )
    return families


def bounds_of(model: str, context_window: int | None, facts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return every fact of `model`: the file's first, then the library's window, then a true bound."""
    found: dict[str, int] = {}
    for key in FACTS:
        family = longest_family(model, (name for name, table in facts.items() if key in table))
        if family:
            found[key] = facts[family][key]
    context = found.get("context_tokens", context_window)
    if not context:
        raise BadModelFacts(f"models.toml: {model}: its context window is not known: add its family")
    return {
        "context_tokens": context,
        "output_tokens_max": 0 if "embedding" in model else found.get("output_tokens_max", context),
        "image_tokens_max": found.get("image_tokens_max", IMAGE_TOKENS_MAX),
    }


def is_of_family(model: str, family: str) -> bool:
    """Tell whether `family` is the model's id, or the start of it up to a dash.

    >>> is_of_family("gpt-4o-mini", "gpt-4o"), is_of_family("gpt-4o", "gpt-4"), is_of_family("gpt-5.1", "gpt-5")
    (True, False, False)
    """
    return model == family or model.startswith(family + "-")


def longest_family(model: str, families: Iterable[str]) -> str:
    """Return the most specific of the families that `model` belongs to, or ""."""
    return max((family for family in families if is_of_family(model, family)), key=len, default="")
