"""The body of a message while it arrives: blocks kept until they are taken, and the one coroutine that awaits them."""

import asyncio

# Blocks smaller than this are joined as they come: of a body in pieces of two bytes, the pieces take 25 times its size.
_LITTLE_BYTES = 1024


class Inbound:
    """What a request and an answer have in common. Its connection calls `receive`, then `finish` or `fail`."""

    __slots__ = ("_blocks", "_error", "_waiter", "_wake_at_bytes", "buffered_bytes", "complete", "received_bytes")

    def __init__(self) -> None:
        self.complete = False
        self.buffered_bytes = 0
        self.received_bytes = 0
        self._blocks: list[bytes] = []
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._wake_at_bytes = 0

    @property
    def is_awaited(self) -> bool:
        return self._waiter is not None

    def receive(self, block: bytes) -> None:
        size, blocks = len(block), self._blocks
        if size < _LITTLE_BYTES and blocks and len(blocks[-1]) < _LITTLE_BYTES:
            blocks[-1] += block
        else:
            blocks.append(block)
        self.received_bytes += size
        self.buffered_bytes += size
        if self._waiter is not None and self.buffered_bytes >= self._wake_at_bytes:
            self._wake()

    def finish(self) -> None:
        """The body has arrived."""
        self.complete = True
        if self._waiter is not None:
            self._wake()

    def fail(self, error: BaseException) -> None:
        """Nothing more will arrive, and what did is not the whole. The first failure counts."""
        if self._error is None and not self.complete:
            self._error = error
            if self._waiter is not None:
                self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _arrival(self, bytes_min: int) -> None:
        """Wait until so much is buffered, or the body is complete; raises what it failed with."""
        while self.buffered_bytes < bytes_min and not self.complete:
            if self._error is not None:
                raise self._error
            self._wake_at_bytes = bytes_min
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:
                    self._waiter = None

    def _take(self) -> bytes:
        blocks = self._blocks
        if len(blocks) == 1:
            data = blocks[0]
        else:
            data = b"".join(blocks)
        self._blocks = []
        self.buffered_bytes = 0
        return data
