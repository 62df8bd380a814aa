"""Sends one notice to one target: a signed webhook, or any service that apprise has a URL for. Knows no database.

Customers name webhooks, so one may be meant to reach what only we can: every address is judged when it is connected to,
whatever name led there, and no redirect is followed. No error tells a secret of a URL.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp

from gateway.core.access.addresses import Address, Network, is_within
from gateway.core.guard.notices import Words, signature

SIGNATURE_HEADER, ID_HEADER = "x-tollgate-signature", "x-tollgate-notice"

ERROR_LENGTH_MAX = 300
SECRET_LENGTH_MIN = 5  # of a part of a URL; shorter ones would take words out of a message
APPRISE_THREADS = 4
# IPv4 addresses in IPv6 clothes, which a gateway on the way takes off again.
NAT64 = IPv6Network("64:ff9b::/96")


class NotSent(Exception):
    """The notice did not arrive; the message says why, without a secret."""


class UnusableTarget(Exception):
    """The URL cannot be a target."""


class Sender:
    """Makes its client in the running loop. `now_s` is Unix time, for signatures."""

    def __init__(self, *, timeout_s: float, private_networks: Sequence[Network], now_s: Callable[[], int]) -> None:
        self._timeout_s = timeout_s
        self._private_networks = tuple(private_networks)
        self._now_s = now_s
        connector = aiohttp.TCPConnector(socket_factory=self._socket, force_close=True)
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        self._threads = ThreadPoolExecutor(APPRISE_THREADS, thread_name_prefix="apprise")

    async def close(self) -> None:
        await self._session.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def webhook(self, url: str, secret: str, body: bytes, notice_id: str) -> None:
        """POST `body`; any answer but 2xx raises `NotSent`. Its id lets a receiver know what it has had already."""
        headers = {
            "content-type": "application/json",
            "user-agent": "Tollgate",
            SIGNATURE_HEADER: signature(secret, body, self._now_s()),
            ID_HEADER: notice_id,
        }
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                status = answer.status
        except aiohttp.ClientConnectorError as error:
            raise NotSent(f"cannot connect: {error.os_error.strerror or error.os_error}"[:ERROR_LENGTH_MAX]) from error
        except TimeoutError as error:
            raise NotSent(f"no answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise NotSent(type(error).__name__) from error
        if not 200 <= status < 300:
            raise NotSent(f"answered {status}")

    async def apprise(self, url: str, words: Words) -> None:
        """Send by apprise, in a thread; one that does not end in time may still arrive later."""
        sending = asyncio.get_running_loop().run_in_executor(self._threads, _send, url, words)
        try:
            error = await asyncio.wait_for(sending, self._timeout_s)
        except TimeoutError as late:
            raise NotSent(f"not sent within {self._timeout_s:g} s") from late
        if error:
            raise NotSent(error)

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        """The one place that every connection passes, with the address it goes to."""
        family, kind, protocol, _, (host, *_) = address
        if not is_reachable(host, self._private_networks):
            raise OSError("a private address, which notify.private_networks does not allow")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


def is_reachable(host: str, private_networks: Sequence[Network]) -> bool:
    """Whether a notice may go to this address: a public one, or one of the networks that the operator allows.

    >>> [is_reachable(host, ()) for host in ("93.184.216.34", "127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1")]
    [True, False, False, False]
    """
    given = ip_address(host.partition("%")[0])
    if is_within(given, private_networks):
        return True
    address = _inner(given)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inner(address: Address) -> Address:
    """The IPv4 address that packets to this one end at, if there is one."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


def describe(url: str) -> tuple[str, str]:
    """(kind, what may be shown) of a target's URL; raises `UnusableTarget`. Only webhooks do without apprise."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UnusableTarget("The target is not a URL.") from error
    if parts.scheme in ("http", "https"):
        if not parts.hostname or parts.username is not None or parts.fragment or not url.isprintable() or " " in url:
            raise UnusableTarget("A webhook is a URL like https://example.com/notices, without a user or a fragment.")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return "webhook", f"{parts.scheme}://{host}{f':{port}' if port else ''}/…"
    service = _service(url)
    if service is None:
        raise UnusableTarget("apprise knows no such service; its URLs look like mailto://… or slack://….")
    return "apprise", f"{parts.scheme}://… ({service.service_name})"


def _send(url: str, words: Words) -> str:
    """Runs in a thread of its own; returns what went wrong, or nothing."""
    service = _service(url)
    if service is None:
        return "apprise does not know this service any more"
    logger = logging.getLogger("apprise")
    heard = _Heard()
    logger.addHandler(heard)
    try:
        is_sent = service.notify(body=words.text, title=words.subject)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        return type(error).__name__  # a service's own trouble with what it was answered
    finally:
        logger.removeHandler(heard)
    return "" if is_sent else _without_secrets(heard.said or "refused, without a reason", url)[:ERROR_LENGTH_MAX]


def _service(url: str) -> Any:
    """Apprise's plugin for this URL, or None."""
    import apprise  # slow to import, and many gateways have only webhooks

    logging.getLogger("apprise").propagate = False  # its lines may hold parts of the URL
    return apprise.Apprise.instantiate(url)


class _Heard(logging.Handler):
    """What this thread's service complains of: apprise tells reasons only in its log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.said = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.said = record.getMessage()


def _without_secrets(text: str, url: str) -> str:
    """`text` without any part of `url` but its host.

    >>> _without_secrets("failed for a1b2c3d4 at example.com", "slack://a1b2c3d4@example.com")
    'failed for … at example.com'
    """
    parts = urlsplit(url)
    inside = f"{parts.netloc.rpartition('@')[0]}/{parts.path}/{parts.query}/{parts.fragment}"
    for separator in ":@&=?":
        inside = inside.replace(separator, "/")
    for part in sorted({unquote(part) for part in inside.split("/")} | set(inside.split("/")), key=len, reverse=True):
        if len(part) >= SECRET_LENGTH_MIN:
            text = text.replace(part, "…")
    return text
