"""What tells people: for every process the list of notices to raise, for the workers their delivery."""

import time
from collections.abc import Coroutine, Iterator
from pathlib import Path

from prometheus_client.core import Metric

from gateway.adapters.notify import Sender
from gateway.adapters.postgres.notices import Notices
from gateway.config import Config, ConfigError
from gateway.core.guard.notices import NoticesError, Templates, load_templates
from gateway.loops import every
from gateway.resources import shipped
from gateway.web.metrics import counters, gauges
from gateway.workers.notifier import Notifier

TIDY_S, COUNT_S = 3600.0, 60.0


class NoticeParts:
    """The notifier and its client. To be closed."""

    def __init__(self, config: Config, notices: Notices) -> None:
        settings = self._settings = config.notify
        self._notices = notices
        self._sender = Sender(
            timeout_s=settings.timeout_ms / 1000,
            private_networks=settings.private_networks,
            now_s=lambda: int(time.time()),
        )
        self.notifier = Notifier(
            notices,
            self._sender,
            load_words(config),
            at_once_max=settings.at_once_max,
            attempts_max=settings.attempts_max,
            timeout_s=settings.timeout_ms / 1000,
            retry_first_s=settings.retry_first_s,
            retry_longest_s=settings.retry_longest_s,
        )
        self._waiting: dict[str, int] = {}

    def loops(self) -> list[Coroutine[None, None, None]]:
        return [
            every(self._settings.deliver_ms / 1000, "deliver notices", self.notifier.step),
            every(TIDY_S, "tidy notices", self.notifier.tidy),
            every(COUNT_S, "count notices", self._count),
        ]

    def metrics(self) -> Iterator[Metric]:
        notifier = self.notifier
        yield from counters(
            {
                "tollgate_notices_sent": ("Notices that arrived.", lambda: notifier.sent_total),
                "tollgate_notices_retried": ("Failed attempts at one.", lambda: notifier.retried_total),
            }
        )
        yield from gauges(
            {"tollgate_notices_dead": ("Deliveries given up.", lambda: float(self._waiting.get("dead", 0)))}
        )

    async def close(self) -> None:
        await self._sender.close()

    async def _count(self) -> int:
        self._waiting = await self._notices.counts()
        return 0


def load_words(config: Config) -> Templates:
    """The configured words of notices; raises `ConfigError`."""
    path = Path(config.notify.words) if config.notify.words else shipped("config") / "notices.toml"
    try:
        return load_templates(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"notify.words: {path}: {error.strerror}; name a file like config/notices.toml") from error
    except (NoticesError, UnicodeDecodeError) as error:
        raise ConfigError(f"notify.words: {path.name}: {error}") from error
