"""So much within a minute, or an hour, from one network address, counted in this process alone.

What was taken flows off evenly, a window's worth in a window; how much is left of it at the last taking is kept.
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
        self._taken: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what was left, and when

    def wait_s(self, address: Address | None, now_s: float) -> float:
        """How long until another one is allowed; 0 if it is now. Takes nothing."""
        return max(0.0, (self._left(_network(address), now_s) + 1 - self.most) * self._window_s / self.most)

    def take(self, address: Address | None, now_s: float) -> None:
        """Count one, allowed or not; what is beyond the limit does not make the wait longer."""
        network = _network(address)
        self._taken[network] = min(self._left(network, now_s) + 1, self.most), now_s
        self._taken.move_to_end(network)
        if len(self._taken) > self._addresses_max:
            self._taken.popitem(last=False)

    def _left(self, network: str, now_s: float) -> float:
        """What has not flowed off yet; a whole number at the moment of a burst, however odd the rate."""
        left, at_s = self._taken.get(network, (0.0, now_s))
        return max(0.0, left - max(0.0, now_s - at_s) * self.most / self._window_s)

    def __len__(self) -> int:
        return len(self._taken)


def _network(address: Address | None) -> str:
    """Whom an address stands for; those that cannot be read stand for one."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, NETWORK_BITS), strict=False))
    return str(address)
