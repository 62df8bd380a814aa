"""What an operator's command talks to: a running `up` by its data directory, or the configured Postgres and Redis."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gateway.config import Config, ConfigError, load
from gateway.sandbox.stores import read_state
from gateway.supervisor import SANDBOX_OPENAI, SANDBOX_STRIPE

if TYPE_CHECKING:
    from gateway.app.stores import Stores

T = TypeVar("T")

Data = Annotated[Path | None, typer.Option("--data", help="The data directory of a running `tollgate up`.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file over config/gateway.toml.")]

DEFAULT_DATA = Path(".tollgate")


class CommandFailed(Exception):
    """What the operator asked for cannot be done; the message is one line and says why."""


def target(data: Path | None, config_file: Path | None) -> Config:
    """The configuration to act on; raises `ConfigError` when nothing says where the databases are."""
    config = load(config_file)
    if data is None and config.database_url and config.redis_url:
        return config
    if data is None and (config.database_url or config.redis_url):
        missing = "redis_url" if config.database_url else "database_url"
        raise ConfigError(
            f"{missing}: not set, while the other store is; set TOLLGATE_{missing.upper()}, or give --data"
        )
    state = state_of(data)
    named: dict[str, Any] = {"database_url": state["database_url"], "redis_url": state["redis_url"]}
    if state.get("sandbox_stripe_url"):
        named |= SANDBOX_STRIPE | {"stripe": {"api_url": state["sandbox_stripe_url"]}}
    if state.get("sandbox_openai_url"):
        named |= SANDBOX_OPENAI | {"upstream_url": state["sandbox_openai_url"]}
    return load(config_file, **named)


def state_of(data: Path | None) -> dict[str, str]:
    """What the running `up` on this directory serves; raises `ConfigError` when there is none."""
    directory = data or DEFAULT_DATA
    state = read_state(directory) if directory.is_dir() else None
    if state is None:
        asked = f"no `tollgate up` is running on {directory}" if data else "no database is named"
        raise ConfigError(
            f"{asked}; give --data DIR of a running `tollgate up`, or TOLLGATE_DATABASE_URL and TOLLGATE_REDIS_URL"
        )
    return state


def on_stores(config: Config, action: "Callable[[Stores], Awaitable[T]]") -> T:
    """Open both databases, and return what the action makes of them."""
    from gateway.app.stores import open_stores

    async def main() -> T:
        async with open_stores(config) as stores:
            return await action(stores)

    return asyncio.run(main())


def parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    """What an option says, parsed; raises `CommandFailed`, which names the option."""
    try:
        return parse(text)
    except ValueError as error:
        raise CommandFailed(f"{option}: {error}") from error


async def until_signalled(service: Coroutine[Any, Any, None]) -> None:
    """Run a service until SIGINT or SIGTERM cancels it; what it raises by itself is raised here."""
    running = asyncio.ensure_future(service)
    loop = asyncio.get_running_loop()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(wanted, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running
