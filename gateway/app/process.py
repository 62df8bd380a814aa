"""The life of a process: its parts built, listeners and loops up, a signal, all of it settled and down."""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import structlog
import uvloop
from prometheus_client.core import Metric

from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.app.cards import load_cards
from gateway.app.gateway import Gateway, open_journal
from gateway.app.ops import ops_routes
from gateway.app.sources import now_ms
from gateway.app.stores import Stores, check_redis, open_stores
from gateway.app.workers import Workers
from gateway.config import Config, ConfigError, parse_listen, why
from gateway.core.pricing.schedule import starts_ms
from gateway.loops import end
from gateway.web.metrics import registry
from gateway.web.ops.listener import exposition, listen, ops_app

if TYPE_CHECKING:
    from gateway.app.stripe import StripeParts

log = structlog.get_logger(__name__)

Announce = Callable[[dict[str, str]], None]

# A gateway without a worker says so and serves its 503s; one whose worker starts beside it waits for it this long.
READY_PATIENCE_S = 2.0

# Container allocations, less deallocations, before the youngest generation is collected.
GC_ALLOCATIONS = 50_000


async def serve_gateway(config: Config, listener: socket.socket | None, announce: Announce) -> None:
    """Run one gateway until SIGINT or SIGTERM; raises `ConfigError` or `SchemaError` when it cannot start."""
    cards = load_cards(config, now_ms())
    async with open_stores(config) as stores:
        await check_redis(config, stores.link)
        in_force = cards.schedule.at(now_ms())
        log.info("rate card in force", version=in_force.version, to_come=len(cards.files) - 1)
        if starts_ms(in_force.effective_from) > now_ms():
            log.warning("no rate card has begun yet, so the first is used", begins=str(in_force.effective_from))
        for card, text in cards.files:
            await stores.accounts.record_card(card, text)
        await _tell_strays(stores)
        journal, spooled = open_journal(config)
        gateway = Gateway(config, stores, cards.schedule, journal, spooled)
        try:
            await gateway.ready.wait(READY_PATIENCE_S)
            base_url = await _listen_public(gateway, config, listener)
            await _run(gateway, stores, config, announce, base_url)
        finally:
            await journal.close()


async def _tell_strays(stores: Stores) -> None:
    """An account on a plan that was taken out of the configuration has the default's caps: looser ones, perhaps."""
    with suppress(LedgerUnavailable):
        for plan, accounts in (await stores.account_desk.strays()).items():
            log.error("accounts are on a plan that is not configured; the default holds", plan=plan, accounts=accounts)


async def _listen_public(gateway: Gateway, config: Config, listener: socket.socket | None) -> str:
    host, port = parse_listen(config.listen)
    try:
        address = await gateway.start(host, port, listener)
    except OSError as error:
        raise ConfigError(f"listen: {config.listen}: {why(error)}; choose another with --listen") from error
    return f"http://{address}/v1"


async def run_workers(config: Config, announce: Announce) -> None:
    """Run the workers until SIGINT or SIGTERM; raises `ConfigError` or `SchemaError` when they cannot start."""
    async with open_stores(config) as stores:
        await check_redis(config, stores.link)
        workers = Workers(config, stores)
        await workers.rebuilder.step()  # a fresh or emptied Redis can take calls before anybody is told to make some
        await _run(workers, stores, config, announce, "")


class Part(Protocol):
    """What a process is about."""

    @property
    def stripe(self) -> "StripeParts | None": ...

    def loops(self) -> list[Coroutine[None, None, None]]: ...

    async def readiness(self) -> str: ...

    def metrics(self) -> Iterator[Metric]: ...

    async def stop(self) -> None: ...


async def _run(part: Part, stores: Stores, config: Config, announce: Announce, base_url: str) -> None:
    """The life of a process: loops and operations listener up, ready, a signal, the parts' own stop, loops down.

    A loop that fails ends the process as a signal would: what runs is settled first, then the failure is raised.
    """
    stopping = asyncio.Event()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(wanted, stopping.set)
    ops_host, ops_port = parse_listen(config.ops_listen)
    try:
        ops = ops_app(part.readiness, exposition(registry(part.metrics)), ops_routes(config, stores, part.stripe))
        runner, ops_url = await listen(ops, ops_host, ops_port)
    except OSError as error:
        raise ConfigError(f"ops_listen: {config.ops_listen}: {why(error)}; choose another with --ops-listen") from error
    tasks = [asyncio.create_task(loop) for loop in part.loops()]
    for task in tasks:
        task.add_done_callback(lambda _: stopping.set())
    announce({"base_url": base_url, "ops_url": ops_url} if base_url else {"ops_url": ops_url})
    await stopping.wait()
    log.info("stopping")
    failed = [task for task in tasks if task.done()]
    await part.stop()
    await end(tasks)
    await runner.cleanup()
    for task in failed:
        await task


def _collect_rarely() -> None:
    """What was imported stays for ever, and a call leaves no cycles behind: a full collection every few thousand calls
    would walk both for nothing. Measured: a third of a plain call's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 100)


def serve(config: Config, *, listen_fd: int | None, on_ready: Announce) -> None:
    listener = socket.socket(fileno=listen_fd) if listen_fd is not None else None
    _collect_rarely()
    uvloop.run(serve_gateway(config, listener, on_ready))


def work(config: Config, *, on_ready: Announce) -> None:
    uvloop.run(run_workers(config, on_ready))
