"""Tells operators of breakers that open and close. Every gateway does; the notices' window makes them one."""

from collections.abc import Callable, Iterable

from gateway.adapters.postgres.notices import Notices
from gateway.core.guard.breaker import State
from gateway.core.guard.notices import Kind

OPENED = "it failed too often, or answered too late; `tollgate breakers show` tells more"
CLOSED = "its probes are answered"


class BreakerNotices:
    def __init__(self, states: Callable[[], Iterable[tuple[str, State]]], notices: Notices) -> None:
        self._states = states
        self._notices = notices
        self._told: set[str] = set()  # the open ones that were told of

    async def step(self) -> int:
        """Tell of what has changed; what cannot be told now is told next time. Raises `LedgerUnavailable`."""
        states = list(self._states())
        for name in sorted({name for name, state in states if state is State.OPEN} - self._told):
            await self._notices.tell(Kind.BREAKER_OPENED, None, {"model": name, "reason": OPENED}, subject=name)
            self._told.add(name)
        for name in sorted(self._told - {name for name, state in states if state is not State.CLOSED}):
            await self._notices.tell(Kind.BREAKER_CLOSED, None, {"model": name, "reason": CLOSED}, subject=name)
            self._told.discard(name)
        return 0
