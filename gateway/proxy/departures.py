"""When a caller leaves: how long, and for how many at once, upstream is still read to its end."""

import asyncio
from collections.abc import Callable

import msgspec

from gateway.proxy.http1.server import Request


class Disconnect(msgspec.Struct, frozen=True):
    """How long, and for how many at once, upstream is read to its end after the caller left."""

    drain_s: float
    drains_max: int


class Departures:
    """All calls that go on without their caller."""

    def __init__(self, policy: Disconnect) -> None:
        self._policy = policy
        self._draining: set[Departure] = set()

    def __len__(self) -> int:
        return len(self._draining)

    def watch(self, request: Request, *, is_cancelled: bool, patience: asyncio.Timeout) -> "Departure":
        """While this context is entered, `patience` ends the call of a caller who left; if `is_cancelled`, at once."""

        def left(departure: Departure) -> None:
            self._left(departure, is_cancelled)

        return Departure(request, left, self._draining.discard, patience)

    def stop(self) -> None:
        """From now on, upstream is closed as soon as its caller is gone: the gateway is about to exit."""
        self._policy = Disconnect(0.0, 0)
        for departure in list(self._draining):
            departure.cut_after(0.0)

    def _left(self, departure: "Departure", is_cancelled: bool) -> None:
        # The policy of this moment, not that of the call's beginning: the gateway may be stopping by now.
        if is_cancelled or len(self._draining) >= self._policy.drains_max:
            departure.cut_after(0.0)
        else:
            self._draining.add(departure)
            departure.cut_after(self._policy.drain_s)


class Departure:
    """One call, as long as it is relayed."""

    def __init__(
        self,
        request: Request,
        on_left: "Callable[[Departure], None]",
        on_over: "Callable[[Departure], None]",
        patience: asyncio.Timeout,
    ) -> None:
        self._request = request
        self._on_left = on_left
        self._on_over = on_over
        self._patience = patience
        self._is_over = False

    def __enter__(self) -> None:
        self._request.on_gone(self._left)

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._on_over(self)

    def _left(self) -> None:
        if not self._is_over:
            self._on_left(self)

    def cut_after(self, delay_s: float) -> None:
        """End the call then, unless it is ending already."""
        if not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time() + delay_s)
