"""The plans' caps as the configuration names them."""

from pathlib import Path

from gateway.config import Config, ConfigError
from gateway.core.guard.plans import Plans, PlansError, load_plans
from gateway.resources import shipped

NO_POLICIES = "none"


def load_policies(config: Config) -> Plans:
    """The configured plans; raises `ConfigError`."""
    given = config.caps.policies
    if given == NO_POLICIES:
        return Plans({})
    path = Path(given) if given else shipped("config") / "policies.toml"
    try:
        return load_plans(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"caps.policies: {path}: {error.strerror}; name a file like config/policies.toml") from error
    except (PlansError, UnicodeDecodeError) as error:
        raise ConfigError(f"caps.policies: {path.name}: {error}") from error
