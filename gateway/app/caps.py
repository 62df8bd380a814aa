"""What a gateway needs for caps: the plans' defaults, the caps that were set, and the counting of what they count."""

import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

from gateway.adapters.caps import CapDirectory
from gateway.adapters.counters import Counters
from gateway.adapters.counting import CapCounting
from gateway.adapters.database import LedgerUnavailable
from gateway.adapters.scripts import Scripts
from gateway.app.sources import now_ms
from gateway.app.stores import Stores
from gateway.config import Config, ConfigError
from gateway.core.plans import Plans, PlansError, load_plans
from gateway.loops import every
from gateway.resources import shipped

NO_POLICIES = "none"


class CapParts:
    def __init__(self, config: Config, stores: Stores) -> None:
        self._config = config.caps
        self.counting = CapCounting(
            stores.pool,
            stores.credits,
            Counters(stores.link, Scripts(shipped("lua"))),
            batch_max=config.caps.count_batch_max,
            clock=time.monotonic,
            now_ms=now_ms,
        )
        self.directory = CapDirectory(
            stores.pool,
            load_policies(config),
            poll_s=config.caps.poll_ms / 1000,
            clock=time.monotonic,
            on_caps=self.counting.settle,
        )

    async def start(self) -> None:
        """Read the caps that are set; while Postgres is away calls are refused, and the loop reads them later."""
        with suppress(LedgerUnavailable):
            await self.directory.refresh_step()

    def loops(self) -> list[Coroutine[None, None, None]]:
        return [self.directory.run(), every(self._config.count_ms / 1000, "count caps", self.counting.step)]


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
