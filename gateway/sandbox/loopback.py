"""Simulated outside parties are reached from this machine only."""

from ipaddress import ip_address

from aiohttp import web


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine, seen from itself only.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("192.0.2.1"), is_loopback("example.com")
    (True, True, False, False)
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def loopback_address(host: str) -> str:
    """The address to listen on; raises `ValueError` if it could be reached from another machine.

    >>> loopback_address("localhost"), loopback_address("::1")
    ('127.0.0.1', '::1')
    """
    if not is_loopback(host):
        raise ValueError(f"a sandbox listens on loopback addresses only (127.0.0.1, ::1), not on {host!r}")
    return "127.0.0.1" if host == "localhost" else host


async def listen(runner: web.AppRunner, host: str, port: int) -> str:
    """Set the runner up and listen; returns the origin. Raises OSError."""
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    port = runner.addresses[0][1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
