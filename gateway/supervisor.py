"""`tollgate up`: everything in one, as a small tree of processes that live and die together.

    supervisor ─ postgres · redis (unless URLs are given) · upstream (the simulated one) · serve × N · work

Children are restarted with backoff, die with the supervisor, and stop in the order in which money flows: the gateways
first, then the worker that posts what they settled, the stores last.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog

from gateway.config import Config, ConfigError, parse_listen
from gateway.sandbox import child
from gateway.sandbox.errors import SandboxError
from gateway.sandbox.home import free_port
from gateway.sandbox.stores import Stores, write_state

log = structlog.get_logger(__name__)

# With which a child ends once it has told, on stderr, what is wrong with its configuration.
EXIT_MISCONFIGURED = 2

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 45.0
RESTART_DELAY_S_MIN, RESTART_DELAY_S_MAX = 0.2, 10.0
# A child that ran this long has proved itself: its next restart starts from the shortest delay again.
PROVEN_S = 30.0

# What stands for Stripe's secrets where Stripe is simulated, on loopback; they open nothing.
SANDBOX_STRIPE = {"STRIPE_SECRET_KEY": "sk_test_sandbox", "STRIPE_WEBHOOK_SECRETS": "whsec_sandbox"}

# And for the key that reads OpenAI's usage and costs, where OpenAI is simulated.
SANDBOX_OPENAI = {"OPENAI_ADMIN_KEY": "sk-admin-sandbox"}

Report = Callable[[str], None]


class StartFailed(Exception):
    """A child ended before it was ready. The message is empty where the child has said itself what to mend."""


class Ready(msgspec.Struct):
    """The line a child prints once it serves."""

    event: str = ""
    base_url: str = ""
    ops_url: str = ""


@dataclass
class Child:
    """One `tollgate` subcommand in a process of its own."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    sockets: list[socket.socket] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    ready: Ready = field(default_factory=Ready)

    async def start(self) -> None:
        """Start it and wait for its ready line; raises `StartFailed`."""
        # A child dies with its parent; Ctrl-C reaches the supervisor alone, which stops the children in order.
        launch = [sys.executable, "-I", "-S", child.__file__, str(os.getpid()), str(int(signal.SIGTERM)), child.SAME]
        self.process = await asyncio.create_subprocess_exec(
            *launch,
            sys.executable,
            "-m",
            "gateway",
            *self.arguments,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[listener.fileno() for listener in self.sockets],
            start_new_session=True,
        )
        assert self.process.stdout is not None
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), READY_TIMEOUT_S)
        except TimeoutError:
            await self.stop(0)
            raise StartFailed(f"{self.name} was not ready within {READY_TIMEOUT_S:.0f} s") from None
        if not line:
            status = await self.process.wait()
            raise StartFailed("" if status == EXIT_MISCONFIGURED else f"{self.name} ended with status {status}")
        self.ready = msgspec.json.decode(line, type=Ready)

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), timeout_s)
        except TimeoutError:
            log.error("child did not stop in time and is killed", child=self.name)
            process.kill()
            await process.wait()


@dataclass(frozen=True)
class Running:
    """What `up` serves, as its ready line says it."""

    base_url: str
    ops_url: str
    database_url: str
    redis_url: str
    upstream_url: str
    processes: dict[str, int]
    sandbox_stripe_url: str = ""

    def line(self) -> str:
        return msgspec.json.encode({"event": "ready"} | asdict(self)).decode()


class Supervisor:
    def __init__(
        self, config: Config, data: Path, *, workers: int, use_sandbox_upstream: bool, config_file: Path | None
    ) -> None:
        self._config = config
        self._data = data
        self._workers = workers
        self._use_sandbox_upstream = use_sandbox_upstream
        self._config_file = config_file
        self._stores: Stores | None = None
        self._children: list[Child] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._simulates_stripe = use_sandbox_upstream and not config.stripe_key
        self._stopping = False
        self._failed: asyncio.Future[None] | None = None
        self.restarts = 0

    def children_with_ops(self) -> list[Child]:
        return [running for running in self._children if running.ready.ops_url]

    async def start(self, report: Report, migrate: Callable[[str], Awaitable[None]]) -> Running:
        """Start everything in order, or nothing; raises `SandboxError`, `ConfigError` or `StartFailed`."""
        self._failed = asyncio.get_running_loop().create_future()
        try:
            return await self._start(report, migrate)
        except BaseException:
            await self.stop(report)
            raise

    async def _start(self, report: Report, migrate: Callable[[str], Awaitable[None]]) -> Running:
        config = self._config
        listeners = reusable_listeners(config.listen, self._workers)
        database_url, redis_url = await self._databases(report)
        report("bringing the schema up to date")
        await migrate(database_url)
        environment = os.environ | {
            "TOLLGATE_DATABASE_URL": database_url,
            "TOLLGATE_REDIS_URL": redis_url,
            "TOLLGATE_UPSTREAM_URL": config.upstream_url,
            "TOLLGATE_SPOOL_DIR": config.spool_dir or str(self._data / "spool"),
            "TOLLGATE_LOG_LEVEL": config.log_level,
            "TOLLGATE_OPS_LISTEN": "127.0.0.1:0",
        }
        if self._use_sandbox_upstream:
            report("starting the simulated OpenAI")
            await self._add_sandbox_openai(environment)
        if self._simulates_stripe:
            self._add_sandbox_stripe(listeners[0], environment)
        report("starting the gateway and its workers")
        given = ["--config", str(self._config_file)] if self._config_file else []
        for number, listener in enumerate(listeners):
            arguments = ["serve", *given, "--json", "--listen-fd", str(listener.fileno())]
            self._children.append(Child(f"serve-{number}", arguments, dict(environment), [listener]))
        self._children.append(Child("work", ["work", *given, "--json"], dict(environment)))
        starts = [c.start() for c in self._children if c.process is None]
        # All of them: a stop must know each process.
        for failed in await asyncio.gather(*starts, return_exceptions=True):
            if failed is not None:
                raise failed
        self._watch()
        host, port = listeners[0].getsockname()[:2]
        return Running(
            base_url=f"http://{f'[{host}]' if ':' in host else host}:{port}/v1",
            ops_url="",
            database_url=database_url,
            redis_url=redis_url,
            upstream_url=environment["TOLLGATE_UPSTREAM_URL"],
            processes={c.name: c.process.pid for c in self._children if c.process is not None},
            sandbox_stripe_url=environment.get("TOLLGATE_STRIPE__API_URL", "") if self._simulates_stripe else "",
        )

    async def _databases(self, report: Report) -> tuple[str, str]:
        """The URLs of both databases; what is not configured is embedded."""
        config = self._config
        if config.database_url and config.redis_url:
            return config.database_url, config.redis_url
        report("starting the embedded PostgreSQL and Redis")
        stores = Stores(self._data)
        await stores.start()
        self._stores = stores  # only now: a directory that another Tollgate uses is not ours to let go of
        return config.database_url or stores.database_url, config.redis_url or stores.redis_url

    async def _add_sandbox_openai(self, environment: dict[str, str]) -> None:
        """The simulated OpenAI, running; `environment` tells the gateways where it is."""
        upstream = Child("upstream", ["sandbox", "openai", "--listen", "127.0.0.1:0", "--json"], dict(environment))
        await self._launch(upstream)
        # Started again, it must be where the gateways look for it.
        upstream.arguments[upstream.arguments.index("127.0.0.1:0")] = urlsplit(upstream.ready.base_url).netloc
        environment |= SANDBOX_OPENAI | {"TOLLGATE_UPSTREAM_URL": upstream.ready.base_url}
        # What is simulated forgets with its process: days before a restart would never agree.
        environment.setdefault("TOLLGATE_RECONCILE__DAILY", "false")

    def _add_sandbox_stripe(self, listener: socket.socket, environment: dict[str, str]) -> None:
        """The simulated Stripe, started beside the gateways; `environment` tells them where it is."""
        url = f"http://127.0.0.1:{free_port()}"
        webhook = f"http://127.0.0.1:{listener.getsockname()[1]}/webhooks/stripe"
        environment |= SANDBOX_STRIPE | {"TOLLGATE_STRIPE__API_URL": url}
        secret = SANDBOX_STRIPE["STRIPE_WEBHOOK_SECRETS"]
        arguments = ["--listen", urlsplit(url).netloc, "--forward-to", webhook, "--secret", secret, "--json"]
        self._children.append(Child("stripe", ["sandbox", "stripe", *arguments], dict(environment)))

    async def _launch(self, new: Child) -> None:
        self._children.append(new)
        await new.start()

    def publish(self, running: Running, ops_url: str) -> Running:
        """Tell other commands of this user, by the data directory, what runs here."""
        complete = replace(running, ops_url=ops_url)
        if self._stores is not None:
            state = {"base_url": running.base_url, "ops_url": ops_url, "rate_card": self._rate_card()}
            state["sandbox_stripe_url"] = running.sandbox_stripe_url
            state["sandbox_openai_url"] = running.upstream_url if self._use_sandbox_upstream else ""
            write_state(self._data, state | {"database_url": running.database_url, "redis_url": running.redis_url})
        return complete

    def _rate_card(self) -> str:
        """The setting, for commands that run in another folder."""
        setting = self._config.rate_card
        return str(Path(setting).absolute()) if Path(setting).exists() else setting

    def _watch(self) -> None:
        if self._stores is not None:
            self._tasks.append(asyncio.create_task(self._stores.supervise(lambda what: log.error(what))))
        self._tasks += [asyncio.create_task(self._keep_up(child_)) for child_ in self._children]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        assert self._failed is not None
        if not task.cancelled() and task.exception() is not None and not self._failed.done():
            self._failed.set_exception(task.exception() or StartFailed("a child could not be kept up"))

    async def _keep_up(self, kept: Child) -> None:
        """Start a child again whenever it ends, with a growing delay while it keeps ending young."""
        loop = asyncio.get_running_loop()
        delay_s = RESTART_DELAY_S_MIN
        while True:
            assert kept.process is not None
            started_at = loop.time()
            status = await kept.process.wait()
            if loop.time() - started_at > PROVEN_S:
                delay_s = RESTART_DELAY_S_MIN
            log.error("child ended and is started again", child=kept.name, status=status, delay_s=delay_s)
            self.restarts += 1
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RESTART_DELAY_S_MAX)
            try:
                await kept.start()
            except StartFailed as error:
                log.error("child did not start", child=kept.name, error=str(error))

    async def wait(self, stop: asyncio.Event) -> None:
        """Return when asked to stop; raises what made going on impossible (a store that does not come back)."""
        assert self._failed is not None
        stopping = asyncio.create_task(stop.wait())
        try:
            waits: set[asyncio.Future[Any]] = {stopping, self._failed}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
        finally:
            stopping.cancel()

    async def stop(self, report: Report) -> None:
        """Stop the children in the order in which money flows, then the stores."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        by_order = sorted(
            self._children, key=lambda c: ("serve", "work", "upstream", "stripe").index(c.name.split("-")[0])
        )
        serving = [c for c in by_order if c.name.startswith("serve")]
        if serving:
            report("letting running calls finish")
        await asyncio.gather(*(c.stop() for c in serving))
        for other in by_order:
            await other.stop()
        for listener in {listener for c in self._children for listener in c.sockets}:
            listener.close()
        self._children.clear()
        if self._stores is not None:
            report("stopping the stores")
            await self._stores.stop()
            self._stores = None


def reusable_listeners(listen: str, count: int) -> list[socket.socket]:
    """Bind HOST:PORT `count` times, for processes that share it; raises `ConfigError` when the port is in use.

    The supervisor keeps them open, so connections queue while a gateway is restarted instead of being refused.
    """
    host, port = parse_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listeners: list[socket.socket] = []
    with socket.socket(family) as probe:  # SO_REUSEPORT alone would let two Tollgates share a port unnoticed
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"listen: {listen}: {error.strerror}; choose another with --listen HOST:PORT") from error
    with contextlib.ExitStack() as opened:
        for _ in range(count):
            listener = opened.enter_context(socket.socket(family))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if count > 1:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                listener.bind((host, port))
            except OSError as error:
                raise ConfigError(f"listen: {listen}: {error.strerror}; choose another with --listen") from error
            listener.listen(4096)
            listener.setblocking(False)
            port = listener.getsockname()[1]  # of the first, when 0 was asked
            listeners.append(listener)
        opened.pop_all()
    return listeners


__all__ = ["Running", "SandboxError", "StartFailed", "Supervisor"]
