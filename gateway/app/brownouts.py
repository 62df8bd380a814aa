"""What the configuration says about brownouts, for commands and for the rules of a gateway."""

import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial

from gateway.app.cards import load_cards
from gateway.app.sources import now_ms
from gateway.app.stores import Stores
from gateway.config import Config
from gateway.core.guard.brownout import Level
from gateway.core.guard.brownout_rules import RulePolicy
from gateway.core.guard.policy import Controls
from gateway.proxy.rules import BrownoutRules, Measure


def brownout_rules(config: Config, stores: Stores, controls: Callable[[], Controls]) -> BrownoutRules:
    section = config.brownout
    return BrownoutRules(
        stores.brownouts,
        section.expensive,
        RulePolicy(
            window_ms=section.rule_window_s * 1000,
            baseline_ms=section.baseline_s * 1000,
            calls_min=section.rule_calls_min,
            slow_factor=section.slow_factor,
            slow_ms_min=section.slow_ms_min,
            error_rate=section.error_percent / 100,
        ),
        Measure(
            Level(section.rule_level),
            section.rule_for_s * 1000,
            section.shed_percent,
            section.output_tokens,
            partial(reroute_of, config),
        ),
        controls=controls,
        clock_ms=lambda: time.monotonic_ns() // 1_000_000,
    )


def reroute_of(config: Config, models: str) -> str:
    """The cheaper model of a model or pattern; "" if there is none."""
    reroute = config.brownout.reroute
    named = reroute.get(models) or next((to for each, to in reroute.items() if fnmatchcase(models, each)), "")
    return "" if named == models else named


def priced_models(config: Config, models: str) -> list[str]:
    """What of the rate card in force a model or pattern stands for."""
    now = now_ms()
    card = load_cards(config, now).schedule.at(now)
    if (row := card.find(models)) is not None:
        return [row.model]
    return [model for model in card.rows if fnmatchcase(model, models)]
