"""Which rate card a process runs under."""

from pathlib import Path

from gateway.config import Config, ConfigError
from gateway.core.rate_card import RateCardError, load_card
from gateway.core.rates import RateCard
from gateway.resources import shipped


def load_rate_card(config: Config) -> tuple[RateCard, str]:
    """The configured rate card and its text; raises `ConfigError`."""
    folder = shipped("config") / "rates"
    if config.rate_card == "latest":
        path = max(folder.glob("*.toml"), default=None)
        if path is None:
            raise ConfigError(f"rate_card: there is none in {folder}; make one with `tollgate rates build`")
    else:
        named = Path(config.rate_card)
        path = named if named.suffix == ".toml" and named.exists() else folder / f"{config.rate_card}.toml"
    try:
        text = path.read_text(encoding="utf-8")
        return load_card(text, path.stem), text
    except OSError as error:
        raise ConfigError(f"rate_card: {path}: {error.strerror}; name a file of config/rates or a path") from error
    except (RateCardError, UnicodeDecodeError) as error:
        raise ConfigError(f"rate_card: {error}") from error
