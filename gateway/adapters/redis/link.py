"""The gateway's way to Redis: one connection, kept up in the background, that fails fast while it is down.

Commands are pipelined by loop tick (see `wire`). Nothing is retried here: the outcome of a command that failed is
unknown, and only its caller knows whether it may be repeated.
"""

import asyncio
import ssl
from typing import Any

import structlog
from redis.asyncio.connection import parse_url

from gateway.adapters.redis.wire import Argument, RedisScriptError, RedisUnavailable, Wire

__all__ = ["Argument", "RedisLink", "RedisScriptError", "RedisUnavailable"]

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S = 2.0
BACKOFF_S_MIN = 0.02


class RedisLink:
    def __init__(
        self,
        url: str,
        *,
        command_timeout_ms: int = 200,
        pending_commands_max: int = 20_000,
        reconnect_backoff_ms_max: int = 1000,
    ) -> None:
        """`url` is redis://, rediss:// or unix://, as redis-py reads them; raises `ValueError` if it is none."""
        self._address = parse_url(url)
        self._tls = _tls_of(self._address) if url.startswith("rediss://") else None
        self._command_timeout_s = command_timeout_ms / 1000
        self._pending_max = pending_commands_max
        self._backoff_s_max = reconnect_backoff_ms_max / 1000
        self._wire: Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._became_available = asyncio.Event()
        self._last_refusal = ""

    async def open(self) -> bool:
        """Start keeping a connection, and try once to make it; returns whether Redis is there already."""
        assert self._keeper is None, "the link is open"
        wire = await self._connect()
        self._keeper = asyncio.create_task(self._keep_connected(wire), name="redis link")
        self._keeper.add_done_callback(_report)
        return wire is not None

    @property
    def available(self) -> bool:
        return self._wire is not None

    @property
    def pending(self) -> int:
        """How many commands are unanswered."""
        return self._wire.pending if self._wire is not None else 0

    async def wait_available(self) -> None:
        """Wait until Redis is connected."""
        await self._became_available.wait()

    def command(self, *arguments: Argument) -> asyncio.Future[Any]:
        """Send one command with the others of this loop tick; the future is its reply, bulk strings as bytes.

        Raises `RedisUnavailable`, here or through the future, when Redis cannot answer now; `RedisScriptError` through
        the future when it refuses the command.
        """
        if self._wire is None:
            raise RedisUnavailable("not connected")
        return self._wire.command(*arguments)

    async def close(self) -> None:
        """Close the connection; what is unanswered fails."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        if self._wire is not None:
            self._wire.abort("the link was closed")

    def _adopt(self, wire: Wire) -> None:
        self._wire = wire
        self._became_available.set()

    async def _keep_connected(self, wire: Wire | None) -> None:
        backoff_s = BACKOFF_S_MIN
        while True:
            if wire is not None:
                backoff_s = BACKOFF_S_MIN
                why = await asyncio.shield(wire.lost)
                log.warning("redis lost", why=why)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, self._backoff_s_max)
            wire = await self._connect()

    async def _connect(self) -> Wire | None:
        """Connect, log in and get a first answer; None if any of it fails."""
        loop = asyncio.get_running_loop()
        wire = Wire(loop, self._forget, command_timeout_s=self._command_timeout_s, pending_max=self._pending_max)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if "path" in self._address:
                    await loop.create_unix_connection(lambda: wire, self._address["path"])
                else:
                    await loop.create_connection(lambda: wire, *self._host_and_port(), ssl=self._tls)
                await asyncio.gather(*(wire.command(*command) for command in self._greeting()))
        except (OSError, RedisScriptError) as error:  # a timeout, RedisUnavailable and TLS errors are OSErrors
            wire.abort("could not connect")
            self._note_refusal(str(error) or type(error).__name__)
            return None
        except asyncio.CancelledError:
            wire.abort("the link was closed")
            raise
        if wire.lost.done():  # between its answer and this line
            return None
        log.info("redis connected")
        self._last_refusal = ""
        self._adopt(wire)
        return wire

    def _note_refusal(self, why: str) -> None:
        """Log why Redis cannot be reached, once for each reason: it is tried again for as long as it takes."""
        if why != self._last_refusal:
            self._last_refusal = why
            log.warning("redis not connected", why=why)

    def _forget(self, wire: Wire) -> None:
        if self._wire is wire:
            self._wire = None
            self._became_available.clear()

    def _host_and_port(self) -> tuple[str, int]:
        return self._address.get("host", "localhost"), self._address.get("port", 6379)

    def _greeting(self) -> list[tuple[Argument, ...]]:
        """The last command proves that the server answers: a stopped one accepts connections all the same."""
        greeting: list[tuple[Argument, ...]] = []
        if self._address.get("password"):
            user = [self._address["username"]] if self._address.get("username") else []
            greeting.append(("AUTH", *user, self._address["password"]))
        if self._address.get("db"):
            greeting.append(("SELECT", self._address["db"]))
        return [*greeting, ("PING",)]


def _report(keeper: asyncio.Task[None]) -> None:
    error = None if keeper.cancelled() else keeper.exception()
    if error is not None:
        log.critical("redis link has stopped reconnecting", exc_info=error)


def _tls_of(address: Any) -> ssl.SSLContext:
    """The TLS settings of a rediss:// URL: its parameters ssl_…, named as redis-py names them."""
    context = ssl.create_default_context(cafile=address.get("ssl_ca_certs"))
    if address.get("ssl_certfile"):
        context.load_cert_chain(address["ssl_certfile"], address.get("ssl_keyfile"))
    if str(address.get("ssl_check_hostname", "true")).lower() in ("false", "0", "no"):
        context.check_hostname = False
    if address.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
