"""An upstream's answer, as whoever asked sees it: read whole, or pumped into a sink as it comes."""

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from gateway.proxy.http1.errors import AnswerBroken, AnswerTooLarge
from gateway.proxy.http1.headers import Fields, Headers
from gateway.proxy.http1.inbound import Inbound

if TYPE_CHECKING:
    from gateway.proxy.http1.link import Link

Sink = Callable[[bytes], None]


class Answer(Inbound):
    """An answer whose head is complete. It must be read, pumped or aborted: until then it keeps its connection."""

    __slots__ = ("_link", "_sink", "fields", "headers", "held_back", "reason", "room_bytes", "status", "travelling")

    def __init__(
        self, link: "Link", status: int, reason: bytes, headers: Headers, fields: Fields, travelling: Headers
    ) -> None:
        Inbound.__init__(self)
        self.status = status
        self.reason = reason
        self.headers = headers
        self.travelling = travelling  # the headers that are not this connection's alone
        self.room_bytes = link.answer_bytes_max  # beyond which the upstream is held back
        self.held_back = False
        self.fields = fields  # lower-case name → first value
        self._link: Link | None = link
        self._sink: Sink | None = None

    def get(self, name: bytes) -> bytes | None:
        """The first value of the field with this lower-case name."""
        return self.fields.get(name)

    def forget_fields(self) -> None:
        """The head is passed on: what is left of the answer, perhaps hours, needs no header."""
        self.headers, self.travelling, self.fields = [], [], {}

    async def read(self, bytes_max: int) -> bytes:
        """Return the whole body, out of its transfer coding. Raises AnswerBroken or AnswerTooLarge (then `pump` on)."""
        if not self.complete:
            usual_bytes, self.room_bytes = self.room_bytes, bytes_max
            self._proceed()
            try:
                await self._arrival(bytes_max + 1)
            finally:
                self.room_bytes = usual_bytes
        if self.buffered_bytes > bytes_max:
            raise AnswerTooLarge(self._take())
        return self._take()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; the upstream is held back while nobody asks. Raises AnswerBroken."""
        while True:
            if not self.buffered_bytes and not self.complete:
                self._proceed()
                await self._arrival(1)
            if self.buffered_bytes:
                yield self._take()
            elif self.complete:
                return

    async def pump(self, sink: Sink) -> None:
        """Call `sink` with what has arrived, then from the loop's read callback with each further read's worth.

        Returns at the clean end of the answer. Raises AnswerBroken when it is cut, malformed or stalls, and whatever
        `sink` raises; the connection is closed then.
        """
        self._sink = sink
        if self.buffered_bytes:
            block = self._take()
            self.received_bytes -= len(block)
            self.receive(block)
        if not self.complete:
            self._proceed()
            try:
                await self._arrival(1 << 62)
            finally:
                self._sink = None  # it leads back here
        if self._error is not None:
            raise self._error

    def pause(self) -> None:
        """Hold the upstream back; what has been read already still comes."""
        if self._link is not None:
            self.held_back = True
            self._link.pause_reading()

    def resume(self) -> None:
        self.held_back = False
        self._proceed()

    def abort(self) -> None:
        """Close the upstream connection now, unless the answer is complete. `read` and `pump` raise AnswerBroken."""
        if self._link is not None:
            self._link.give_up(AnswerBroken("given up"))

    def _proceed(self) -> None:
        if self._link is not None and not self.held_back:
            self._link.resume_reading()

    # --- for the connection --------------------------------------------------------------------------------------

    def receive(self, block: bytes) -> None:
        sink = self._sink
        if sink is None:
            super().receive(block)
        else:
            self.received_bytes += len(block)
            try:
                sink(block)
            except Exception as error:  # noqa: BLE001 - it is raised again where `sink` came from, by `pump`
                self._give_up(error)

    def finish(self) -> None:
        self._link = None
        super().finish()

    def fail(self, error: BaseException) -> None:
        self._link = None
        super().fail(error)

    def _give_up(self, error: Exception) -> None:
        if self._link is not None:
            self._link.give_up(error)
        else:
            self._error = error
