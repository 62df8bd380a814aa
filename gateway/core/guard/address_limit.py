"""So much within a minute, or an hour, from one network address, counted in this process alone.

A rate is kept as the time by which all that was taken has flowed off (GCRA): it may lie one window ahead, and no more.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, IPv6Network

from gateway.core.access.addresses import Address

MINUTE_S, HOUR_S = 60.0, 3600.0
# One customer of a provider has so much of IPv6 to himself.
NETWORK_BITS = 64


class AddressLimit:
    """At most `most` a window from each address; those that were quiet longest are forgotten beyond `addresses_max`."""

    def __init__(self, most: int, addresses_max: int, window_s: float = MINUTE_S) -> None:
        self.most = most
        self._addresses_max = addresses_max
        self._window_s = window_s
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, address: Address | None, now_s: float) -> float:
        """How long until another one is allowed; 0 if it is now. Takes nothing."""
        full_at = self._full_at.get(_network(address), now_s)
        return max(0.0, full_at + self._window_s / self.most - now_s - self._window_s)

    def take(self, address: Address | None, now_s: float) -> None:
        """Count one, allowed or not; what is beyond the limit does not make the wait longer."""
        network = _network(address)
        full_at = max(self._full_at.get(network, now_s), now_s) + self._window_s / self.most
        self._full_at[network] = min(full_at, now_s + self._window_s)
        self._full_at.move_to_end(network)
        if len(self._full_at) > self._addresses_max:
            self._full_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._full_at)


def _network(address: Address | None) -> str:
    """Whom an address stands for; those that cannot be read stand for one."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, NETWORK_BITS), strict=False))
    return str(address)
