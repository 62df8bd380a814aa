"""The sealer: seals what the poster has posted, some moments later and beside it. Any number may run; one seals."""

from collections.abc import Callable

from gateway.adapters.postgres.seals import Mark, Seals


class Sealer:
    """`sealed_total` is for metrics."""

    def __init__(self, seals: Seals, *, batch_max: int, gives_way: Callable[[], bool] = lambda: False) -> None:
        """While `gives_way` says so, only one batch is sealed at a time: what posts is in need of the database."""
        self._seals = seals
        self._gives_way = gives_way
        self._batch_max = batch_max
        self._mark: Mark | None = None
        self.sealed_total = 0

    async def step(self) -> int:
        """Seal one batch; returns how many transfers, so that 0 means to wait. Raises `LedgerUnavailable`."""
        if self._mark is None:
            self._mark = await self._seals.mark()
        if not await self._seals.is_decided(self._mark):
            return 0
        sealed = await self._seals.seal(self._mark, self._batch_max)
        self.sealed_total += sealed
        if sealed < self._batch_max:
            self._mark = await self._seals.mark()
            return 0
        return 0 if self._gives_way() else sealed
