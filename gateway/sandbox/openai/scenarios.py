"""Scenarios: what a request asks the simulated OpenAI to do wrong, or otherwise than usual.

The syntax is described in the package's docstring. A word that is not known is an error, never ignored.
"""

from typing import Any

import msgspec

HEADER = "x-sandbox-scenario"
OUTPUT_TOKENS_MAX = 1_000_000
WAIT_MS_MAX = 600_000
ENCODINGS = frozenset({"gzip", "deflate", "br", "zstd"})
ABSURDITIES = frozenset({"negative", "huge", "details", "text"})
TIERS = frozenset({"default", "flex", "priority", "scale"})


class ScenarioError(ValueError):
    """The scenario is not one that the simulated OpenAI knows."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One request's orders; None or False: as usual."""

    status: int | None = None
    retry_after: int | None = None
    drop: bool = False
    slow_headers: float = 0.0  # ms
    ttft: float | None = None  # ms
    rate: float | None = None  # tokens a second
    stall: int | None = None  # after so many events (bytes of a plain body); -1: before the status line
    cut: int | None = None  # closed after so many events (bytes of a plain body)
    reset: int | None = None  # the same, by a TCP reset
    fail: int | None = None  # an error event after so many events
    tokens: int | None = None
    reasoning: int | None = None
    cached: int | None = None
    no_usage: bool = False
    absurd_usage: str | None = None
    encoding: str | None = None
    no_content_length: bool = False
    malformed: bool = False
    split: int | None = None
    tier: str | None = None
    model: str | None = None


USUAL = Scenario()

_FLAGS = frozenset({"drop", "no_usage", "no_content_length", "malformed"})
_WHOLE: dict[str, tuple[int, int]] = {  # least and most
    "status": (400, 599),
    "retry_after": (0, 86_400),
    "stall": (0, 2**31),
    "cut": (0, 2**31),
    "reset": (0, 2**31),
    "fail": (0, 2**31),
    "tokens": (0, OUTPUT_TOKENS_MAX),
    "reasoning": (0, OUTPUT_TOKENS_MAX),
    "cached": (0, 2**31),
    "split": (1, 2**31),
}
_DECIMAL: dict[str, tuple[float, float]] = {
    "slow_headers": (0.0, WAIT_MS_MAX),
    "ttft": (0.0, WAIT_MS_MAX),
    "rate": (0.0, 1e9),
}
_WORDS: dict[str, frozenset[str]] = {"encoding": ENCODINGS, "absurd_usage": ABSURDITIES, "tier": TIERS}
_BARE: dict[str, Any] = {"stall": -1, "absurd_usage": "negative", "fail": 0, "cut": 0, "reset": 0}


def parse_scenario(text: str, base: Scenario = USUAL) -> Scenario:
    """Read `text` on top of `base`; raises `ScenarioError`, naming the word.

    >>> parse_scenario("stall=3, encoding=br").stall, parse_scenario("no-usage").no_usage
    (3, True)
    """
    orders: dict[str, Any] = {}
    for word in text.split(","):
        if word.strip():
            name, _, value = (part.strip() for part in word.partition("="))
            key = name.lower().replace("-", "_")
            orders[key] = _read(key, name, value)
    return msgspec.structs.replace(base, **orders) if orders else base


def _read(key: str, name: str, value: str) -> Any:
    if key in _FLAGS:
        if value:
            raise ScenarioError(f"scenario {name!r} takes no value")
        return True
    if not value and key in _BARE:
        return _BARE[key]
    if key in _WHOLE:
        return _bounded(name, value, int, *_WHOLE[key])
    if key in _DECIMAL:
        return _bounded(name, value, float, *_DECIMAL[key])
    if key in _WORDS:
        if value not in _WORDS[key]:
            raise ScenarioError(f"scenario {name!r} is one of {', '.join(sorted(_WORDS[key]))}, not {value!r}")
        return value
    if key == "model" and value:
        return value
    raise ScenarioError(f"there is no scenario {name!r}" if key != "model" else "scenario 'model' needs a name")


def _bounded(name: str, value: str, kind: type[int] | type[float], least: float, most: float) -> float:
    try:
        number = kind(value)
    except ValueError as error:
        raise ScenarioError(f"scenario {name!r} needs a number, not {value!r}") from error
    if not least <= number <= most:
        raise ScenarioError(f"scenario {name!r} is between {least} and {most}, not {value}")
    return number
