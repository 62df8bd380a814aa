"""Limits for whoever has no account yet: so much a minute from one network address, counted in this process alone.

A rate is kept as the time by which all that was taken has flowed off (GCRA): it may lie one minute ahead, and no more.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, IPv6Network

from gateway.core.access.addresses import Address

MINUTE_S = 60.0
# One customer of a provider has so much of IPv6 to himself.
NETWORK_BITS = 64


class AddressLimit:
    """At most `per_minute` from each address; the addresses that were quiet longest are forgotten beyond `size_max`."""

    def __init__(self, per_minute: int, size_max: int) -> None:
        self.per_minute = per_minute
        self._size_max = size_max
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, address: Address | None, now_s: float) -> float:
        """How long until another one is allowed; 0 if it is now. Takes nothing."""
        full_at = self._full_at.get(_network(address), now_s)
        return max(0.0, full_at + MINUTE_S / self.per_minute - now_s - MINUTE_S)

    def take(self, address: Address | None, now_s: float) -> None:
        """Count one, allowed or not; what is beyond the limit does not make the wait longer."""
        network = _network(address)
        full_at = max(self._full_at.get(network, now_s), now_s) + MINUTE_S / self.per_minute
        self._full_at[network] = min(full_at, now_s + MINUTE_S)
        self._full_at.move_to_end(network)
        if len(self._full_at) > self._size_max:
            self._full_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._full_at)


def _network(address: Address | None) -> str:
    """Whom an address stands for; those that cannot be read stand for one."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, NETWORK_BITS), strict=False))
    return str(address)
