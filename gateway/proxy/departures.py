"""When a caller leaves: how long, and for how many at once, upstream is still read to its end."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

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

    def watch(self, request: Request, *, is_cancelled: bool) -> "Departure":
        """From now until `over`, the task that serves `request` is cut off when its caller left; if `is_cancelled`, at
        once, else when the drain's bounds are reached.
        """
        departure = Departure(self, request, is_cancelled)
        request.on_gone(departure.left)
        return departure

    @contextmanager
    def attended(self, request: Request) -> Iterator[None]:
        """What the task that serves `request` does in this context ends as soon as the caller leaves."""
        departure = self.watch(request, is_cancelled=True)
        try:
            yield
        except asyncio.CancelledError:
            if not departure.is_cut or request.task.cancelling() > 1:  # the gateway exits
                raise
        finally:
            departure.over()

    def stop(self) -> None:
        """From now on, upstream is closed as soon as its caller is gone: the gateway is about to exit."""
        self._policy = Disconnect(0.0, 0)
        for departure in list(self._draining):
            departure.cut_after(0.0)

    def left(self, departure: "Departure") -> None:
        # The policy of this moment, not that of the call's beginning: the gateway may be stopping by now.
        if departure.is_cancelled or len(self._draining) >= self._policy.drains_max:
            departure.cut_after(0.0)
        else:
            self._draining.add(departure)
            departure.cut_after(self._policy.drain_s)

    def forget(self, departure: "Departure") -> None:
        self._draining.discard(departure)


class Departure:
    """One call, as long as it is relayed. `is_cut`: its task was cancelled here, and by nobody else."""

    __slots__ = ("_all", "_is_over", "_request", "_timer", "is_cancelled", "is_cut")

    def __init__(self, departures: Departures, request: Request, is_cancelled: bool) -> None:
        self._all = departures
        self._request = request
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False
        self.is_cancelled = is_cancelled
        self.is_cut = False

    def left(self) -> None:
        """The caller has left."""
        if not self._is_over:
            self._all.left(self)

    def over(self) -> None:
        """The call is relayed no more, however that came."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._all.forget(self)
        if self.is_cut:
            self._request.task.uncancel()

    def cut_after(self, delay_s: float) -> None:
        """End the call then, unless it is ending already."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._cut)

    def _cut(self) -> None:
        if not self._is_over and not self.is_cut:
            self.is_cut = True
            self._request.task.cancel()
