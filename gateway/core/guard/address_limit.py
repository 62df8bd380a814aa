"""How often each address may do something within an hour, counted in this process alone and in bounded memory."""

from ipaddress import IPv6Address, IPv6Network

from gateway.core.access.addresses import Address

HOUR_S = 3600.0
ADDRESSES_MAX = 10_000  # then whoever has been quiet for longest is forgotten


class AddressLimit:
    """An IPv6 address counts with its /64, which one line has all of; addresses that cannot be told count together."""

    def __init__(self, per_hour_max: int) -> None:
        self._per_hour_max = per_hour_max
        self._counted: dict[object, tuple[float, int]] = {}  # since when, and how often

    def allows(self, address: Address | None, now_s: float) -> bool:
        """Count one more of this address; returns whether it is within its hour's bound."""
        who = IPv6Network((address, 64), strict=False) if isinstance(address, IPv6Address) else address
        since_s, count = self._counted.pop(who, (now_s, 0))
        if now_s - since_s >= HOUR_S:
            since_s, count = now_s, 0
        self._counted[who] = (since_s, count + 1)
        if len(self._counted) > ADDRESSES_MAX:
            del self._counted[next(iter(self._counted))]
        return count < self._per_hour_max
