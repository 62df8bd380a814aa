"""What the configuration says about brownouts, for commands and rules."""

from fnmatch import fnmatchcase

from gateway.app.cards import load_cards
from gateway.app.sources import now_ms
from gateway.config import Config


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
