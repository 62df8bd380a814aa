"""Commands that run something until they are stopped: up, demo, serve, work; and migrate, which they rely on."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from aiohttp import ClientSession
from rich.console import Console

from gateway.cli.output import AsJson
from gateway.cli.target import DEFAULT_DATA, ConfigFile, Data, target
from gateway.config import Config, ConfigError, load, parse_listen, why
from gateway.logs import configure_logs
from gateway.supervisor import Report, Running, Supervisor

Listen = Annotated[str | None, typer.Option(help="HOST:PORT of the public listener (default 127.0.0.1:8080).")]
OpsListen = Annotated[str | None, typer.Option(help="HOST:PORT of the operations listener (default 127.0.0.1:8081).")]

SANDBOX = "sandbox"


def register(app: typer.Typer, panel: str) -> None:
    for command in (demo, up, serve, work, migrate):
        app.command(rich_help_panel=panel)(command)


def up(
    data: Annotated[Path, typer.Option(help="Where the embedded stores keep their data.")] = DEFAULT_DATA,
    listen: Listen = None,
    ops_listen: OpsListen = None,
    upstream: Annotated[
        str | None, typer.Option(help="An origin without /v1, or `sandbox` for the simulated OpenAI.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Gateway processes.")] = 1,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Run everything in one: stores (embedded unless URLs are given), gateway and workers."""
    settings = up_config(config, listen, ops_listen, upstream)
    configure_logs(settings.log_level, settings.log_format, "up")

    async def main() -> None:
        console = Console(stderr=True, quiet=as_json)
        with contextlib.suppress(StoppedEarly):
            await run_until_stopped(console)

    async def run_until_stopped(console: Console) -> None:
        async with Up(settings, data, workers, upstream == SANDBOX, config, console) as started:
            if as_json:
                print(started.running.line(), flush=True)
            else:
                console.print(f"[bold]Tollgate is up[/]: base_url {started.running.base_url}")
                console.print(f"operations: {started.running.ops_url}/metrics   stop: Ctrl-C")
            await started.until_stopped()

    asyncio.run(main())


def up_config(file: Path | None, listen: str | None, ops_listen: str | None, upstream: str | None) -> Config:
    """The configuration of `up`, checked as far as it can be before anything starts."""
    from gateway.app.cards import load_cards
    from gateway.app.sources import now_ms

    origin = None if upstream == SANDBOX else upstream
    config = load(file, listen=listen, ops_listen=ops_listen, upstream_url=origin)
    load_cards(config, now_ms())
    return config


class StoppedEarly(Exception):
    """A stop was asked for before everything was up; all of it is stopped again."""


class Up:
    """A running `up`, from start to clean stop, with its progress shown; stops on SIGINT and SIGTERM."""

    def __init__(
        self, config: Config, data: Path, workers: int, use_sandbox: bool, file: Path | None, console: Console
    ) -> None:
        self._config = config
        self._data = data.absolute()
        self._supervisor = Supervisor(
            config, self._data, workers=workers, use_sandbox_upstream=use_sandbox, config_file=file
        )
        self._console = console
        self._stop = asyncio.Event()
        self.running: Running

    async def __aenter__(self) -> "Up":
        from gateway.web.ops.listener import Fleet, listen, ops_app

        loop = asyncio.get_running_loop()
        for wanted in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(wanted, self._stop.set)
        host, port = parse_listen(self._config.ops_listen)
        self._session = ClientSession()
        fleet = Fleet(self._session, lambda: {c.name: c.ready.ops_url for c in self._supervisor.children_with_ops()})
        try:
            self._ops, ops_url = await listen(ops_app(fleet.readiness, fleet.metrics, [fleet.route()]), host, port)
        except OSError as error:
            await self._session.close()
            raise ConfigError(
                f"ops_listen: {self._config.ops_listen}: {why(error)}; choose another with --ops-listen"
            ) from error
        try:
            with self._console.status("starting") as status:
                self.running = await self._start_or_stop(lambda what: status.update(f"{what} …"))
        except BaseException:
            await self._close_ops()
            raise
        self.running = self._supervisor.publish(self.running, ops_url)
        return self

    async def _start_or_stop(self, report: Report) -> Running:
        """Start, unless a stop is asked for on the way."""
        starting = asyncio.ensure_future(self._supervisor.start(report, _migrate))
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
        if starting.cancelled():
            raise StoppedEarly
        return await starting

    async def until_stopped(self) -> None:
        await self._supervisor.wait(self._stop)

    async def __aexit__(self, *_: object) -> None:
        with self._console.status("stopping") as status:
            await self._supervisor.stop(lambda what: status.update(f"{what} …"))
        await self._close_ops()

    async def _close_ops(self) -> None:
        await self._ops.cleanup()
        await self._session.close()


async def _migrate(database_url: str) -> None:
    from gateway.adapters.postgres import schema

    await asyncio.to_thread(schema.migrate, database_url)


def demo(
    data: Annotated[Path, typer.Option(help="Where the embedded stores keep their data.")] = DEFAULT_DATA,
    listen: Listen = None,
    ops_listen: OpsListen = None,
    upstream: Annotated[str | None, typer.Option(help="An origin, or `sandbox`.")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Run everything and show it at work: an account, a key, three calls through the official SDK, the ledger."""
    from gateway.cli.demo import show_demo

    settings = up_config(config, listen, ops_listen, upstream)
    use_sandbox = upstream == SANDBOX or (upstream is None and not settings.upstream_key)
    settings = settings.model_copy(update={"log_level": "warning"})  # people watch: what goes well is shown below
    configure_logs(settings.log_level, settings.log_format, "up")

    async def main() -> None:
        with contextlib.suppress(StoppedEarly):
            async with Up(settings, data, 1, use_sandbox, config, Console(stderr=True, quiet=as_json)) as started:
                await show_demo(started.running, settings, is_sandbox=use_sandbox, as_json=as_json)
                await started.until_stopped()

    asyncio.run(main())


def serve(
    listen: Listen = None,
    ops_listen: OpsListen = None,
    upstream: Annotated[str | None, typer.Option(help="An origin without /v1.")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    listen_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run one gateway process on the configured Postgres, Redis and upstream."""
    from gateway.app.process import serve as serve_gateway

    settings = needs_databases(load(config, listen=listen, ops_listen=ops_listen, upstream_url=upstream))
    configure_logs(settings.log_level, settings.log_format, "gateway")
    serve_gateway(settings, listen_fd=listen_fd, on_ready=_announcer(as_json))


def work(ops_listen: OpsListen = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Run the workers beside the gateways: they post, sweep, credit, rebuild, seal, notify and reconcile."""
    from gateway.app.process import work as run_workers

    settings = needs_databases(load(config, ops_listen=ops_listen))
    configure_logs(settings.log_level, settings.log_format, "worker")
    run_workers(settings, on_ready=_announcer(as_json))


def needs_databases(config: Config) -> Config:
    for key in ("database_url", "redis_url"):
        if not getattr(config, key):
            raise ConfigError(f"{key}: not set; set TOLLGATE_{key.upper()}, or use `tollgate up` for embedded stores")
    return config


def _announcer(as_json: bool) -> Callable[[dict[str, str]], None]:
    def announce(ready: dict[str, str]) -> None:
        import msgspec

        line = msgspec.json.encode({"event": "ready"} | ready).decode() if as_json else " ".join(ready.values())
        print(line, flush=True)

    return announce


def migrate(data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Bring the database schema up to date."""
    from gateway.adapters.postgres import schema

    settings = load(config)
    url = settings.database_url if data is None and settings.database_url else target(data, config).database_url
    schema.migrate(url)
    print('{"schema":"current"}' if as_json else "the schema is current", file=sys.stdout)
