"""Strangers: what one network address may try before it is known who it is. Counted in each gateway for itself."""

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from gateway.core.access.addresses import Address
from gateway.core.errors import RateLimited
from gateway.core.guard.address_limit import AddressLimit

# What costs others something to answer: a session at Stripe, a debit. By method and path.
GUARDED = frozenset(
    {
        (b"POST", b"/api/purchases"),
        (b"POST", b"/api/purchases/portal"),
        (b"PUT", b"/api/recharge"),
        (b"POST", b"/api/usage/reconcile"),
    }
)


class Strangers:
    """`clock` gives seconds of any monotonic clock."""

    def __init__(
        self, *, failures_per_minute: int, guarded_per_minute: int, addresses_max: int, clock: Callable[[], float]
    ) -> None:
        self._failures = AddressLimit(failures_per_minute, addresses_max)
        self._guarded = AddressLimit(guarded_per_minute, addresses_max)
        self._clock = clock

    def check(self, address: Address | None) -> None:
        """Raise `RateLimited` if too many keys from there were wrong."""
        _require(self._failures, address, self._clock(), "address_failures")

    def failed(self, address: Address | None) -> None:
        """A key from there was wrong."""
        self._failures.take(address, self._clock())

    def admit(self, address: Address | None, method: bytes, path: bytes) -> None:
        """Raise `RateLimited` if there were too many guarded requests from there, or too many wrong keys."""
        now_s = self._clock()
        _require(self._failures, address, now_s, "address_failures")
        if (method, unquote_to_bytes(path)) in GUARDED:  # as the control plane will read it
            _require(self._guarded, address, now_s, "address_requests")
            self._guarded.take(address, now_s)


def _require(limit: AddressLimit, address: Address | None, now_s: float, name: str) -> None:
    wait_s = limit.wait_s(address, now_s)
    if wait_s > 0:
        raise RateLimited(
            "Too many requests from this network address.",
            retry_after_s=int(wait_s) + 1,
            limit=name,
            allowed=limit.most,
        )
