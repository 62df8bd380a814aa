"""Which rate cards a process runs under, and where their files lie."""

from pathlib import Path
from typing import NamedTuple

from gateway.config import Config, ConfigError
from gateway.core.pricing.rate_card import RateCardError, load_card
from gateway.core.pricing.rates import RateCard
from gateway.core.pricing.schedule import Schedule
from gateway.resources import shipped

LATEST = "latest"


class CardFile(NamedTuple):
    card: RateCard
    text: str


class Cards(NamedTuple):
    """The card in force and those that will take over, as files; and who of them is in force when."""

    files: list[CardFile]
    schedule: Schedule


def load_cards(config: Config, now_ms: int) -> Cards:
    """The configured rate cards from `now_ms` on; raises `ConfigError`."""
    found = {file.card.version: file for file in read_cards(card_paths(config))}
    wanted = Schedule(file.card for file in found.values()).from_now_on(now_ms)
    return Cards([found[card.version] for card in wanted], Schedule(wanted))


def card_paths(config: Config) -> list[Path]:
    """The files that the setting `rate_card` stands for: a folder's cards, or the one it names."""
    named = Path(config.rate_card)
    shipped_cards = shipped("config") / "rates"
    if config.rate_card == LATEST or named.is_dir():
        folder = shipped_cards if config.rate_card == LATEST else named
        paths = sorted(folder.glob("*.toml"))
        if not paths:
            raise ConfigError(f"rate_card: there is none in {folder}; make one with `tollgate rates build`")
        return paths
    return [named if named.suffix == ".toml" and named.exists() else shipped_cards / f"{config.rate_card}.toml"]


def read_cards(paths: list[Path]) -> list[CardFile]:
    """Read and check these files; raises `ConfigError`."""
    return [_read(path) for path in paths]


def _read(path: Path) -> CardFile:
    try:
        text = path.read_text(encoding="utf-8")
        return CardFile(load_card(text, path.stem), text)
    except OSError as error:
        raise ConfigError(f"rate_card: {path}: {error.strerror}; name a file of config/rates or a path") from error
    except (RateCardError, UnicodeDecodeError) as error:
        raise ConfigError(f"rate_card: {error}") from error
