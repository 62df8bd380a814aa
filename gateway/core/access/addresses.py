"""Where a request comes from. A header counts only as far as trusted proxies vouch for it. Pure."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Iterable[Network]) -> Address | None:
    """The client's address: the peer's, or what the trusted proxies before it say in X-Forwarded-For.

    Each proxy appends whom it heard from, so the right-most hop that is no trusted proxy is the client; what stands
    left of it anybody could have written. None if that hop cannot be read. `peer` is "host:port", as the edge tells it.

    >>> str(client_address("10.0.0.1:80", ["6.6.6.6, 1.2.3.4"], [IPv4Network("10.0.0.0/8")]))
    '1.2.3.4'
    >>> str(client_address("5.5.5.5:80", ["1.2.3.4"], [IPv4Network("10.0.0.0/8")]))
    '5.5.5.5'
    """
    networks = tuple(trusted)
    address = read_address(peer.rpartition(":")[0])
    hops = [hop for line in forwarded_for for hop in line.split(",")] if networks else []
    while hops and is_within(address, networks):
        address = read_address(hops.pop())
    return address


def is_within(address: Address | None, networks: Iterable[Network]) -> bool:
    return address is not None and any(address in network for network in networks)


def read_address(text: str) -> Address | None:
    """An address, with or without a port or brackets; an IPv4 one in IPv6's clothes is the IPv4 one.

    >>> [str(read_address(text)) for text in ("1.2.3.4", "1.2.3.4:80", "::1", "[::1]:80", "::ffff:1.2.3.4", "unknown")]
    ['1.2.3.4', '1.2.3.4', '::1', '::1', '1.2.3.4', 'None']
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
