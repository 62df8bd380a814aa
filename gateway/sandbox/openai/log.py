"""The request log: every request that reached the simulated OpenAI and what it really produced, bounded.

This is the other side's truth, for audits: usage stands here also when it was never reported.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from itertools import islice
from typing import Any

import msgspec

from gateway.sandbox.openai.tokens import TokenCounts


class Outcome(StrEnum):
    OPEN = "open"  # still running
    COMPLETE = "complete"  # answered to the end
    ERROR = "error"  # answered with an error status
    FAILED = "failed"  # an error event ended the stream
    CUT = "cut"  # a scenario closed the connection
    CLIENT_GONE = "client_gone"  # the client closed the connection
    STOPPED = "stopped"  # the simulated OpenAI stopped first


class LogEntry(msgspec.Struct, kw_only=True, gc=False):
    """One request. `usage` is what was generated: also what was cut off, never reported, or reported wrongly."""

    sequence: int
    request_id: str
    method: str
    path: str
    began_at_s: float
    raw_headers: bytes  # as received: one name and value after the other, each ended by a newline
    endpoint: str = ""  # the route's path; "" if there is none
    model: str = ""  # as asked
    served_model: str = ""
    tier: str = ""  # as served
    stream: bool = False
    body_bytes: int = 0
    body_sha256: str = ""
    status: int = 0  # 0 until it is answered
    outcome: Outcome = Outcome.OPEN
    events: int = 0  # events of a stream, handed to the socket whole
    answer_bytes: int = 0  # of the body, as sent (compressed, if it was)
    usage: TokenCounts = TokenCounts()
    usage_reported: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """The headers received, names in lower case, values of a repeated name joined by a comma."""
        headers: dict[str, str] = {}
        parts = self.raw_headers.decode("utf-8", "surrogateescape").split("\n")
        for name, value in zip(parts[::2], parts[1::2], strict=False):
            lower = name.lower()
            headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
        return headers

    def as_json(self) -> dict[str, Any]:
        fields: dict[str, Any] = msgspec.to_builtins(self)
        del fields["raw_headers"]
        headers = {name: value.encode(errors="replace").decode() for name, value in self.headers.items()}
        return fields | {"headers": headers}


class RequestLog:
    """Entries in order of arrival; the oldest fall out beyond the bound. `on_end` is told each entry that ends."""

    def __init__(self, entries_max: int, on_end: Callable[[LogEntry], None] = lambda _: None) -> None:
        self._entries: deque[LogEntry] = deque(maxlen=entries_max)
        self._on_end = on_end
        self._cleared_at_sequence = 0
        self._waiting: list[asyncio.Future[None]] = []
        self.arrived = 0  # requests since the last clear
        self.ended = 0  # those of them that ended, in whatever way

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> LogEntry:
        return self._entries[index]

    def entries(self, after: int = -1, limit: int | None = None) -> list[LogEntry]:
        """The entries whose sequence is greater than `after`, oldest first, at most `limit`."""
        return list(islice((entry for entry in self._entries if entry.sequence > after), limit))

    def begin(self, entry: LogEntry) -> None:
        self._entries.append(entry)
        self.arrived += 1
        self._wake()

    def end(self, entry: LogEntry, outcome: Outcome) -> None:
        """The request has ended; what is said later about the same one is not heard."""
        if entry.outcome is Outcome.OPEN:
            entry.outcome = outcome
            self._on_end(entry)
            if entry.sequence >= self._cleared_at_sequence:
                self.ended += 1
            self._wake()

    def progressed(self) -> None:
        """An entry changed: wake whoever waits for it."""
        self._wake()

    def clear(self) -> None:
        """Forget everything; a request still running is not counted again when it ends."""
        if self._entries:
            self._cleared_at_sequence = self._entries[-1].sequence + 1
        self._entries.clear()
        self.arrived = self.ended = 0

    async def wait_until(self, condition: Callable[["RequestLog"], bool]) -> None:
        """Return as soon as `condition` holds; it is tried again whenever an entry begins, writes or ends."""
        while not condition(self):
            woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(woken)
            await woken

    async def wait_for_ended(self, count: int) -> None:
        """Return as soon as `count` requests have ended since the last clear."""
        await self.wait_until(lambda log: log.ended >= count)

    def _wake(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for woken in waiting:
                if not woken.done():
                    woken.set_result(None)
