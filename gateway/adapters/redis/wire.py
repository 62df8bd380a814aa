"""One connection to Redis: commands of one loop tick leave as one write, replies are matched to them in order.

It knows neither addresses nor reconnection. When it is lost, everything still unanswered fails: its outcome is unknown.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

Argument = bytes | str | int

# Errors that the server's state explains, not the command: the same command works later, or on another server.
_PASSING_CODES = frozenset(
    {"LOADING", "READONLY", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN"}
    | {"BUSY", "OOM", "MISCONF", "NOREPLICAS", "NOAUTH"}
)
# After these the name that was connected to may lead to another server by now.
_WRONG_SERVER_CODES = frozenset({"READONLY", "MASTERDOWN", "NOAUTH"})

# A timed-out command gets this much more, in which replies are read that arrived while this process was busy.
READING_GRACE_S = 0.01

_UNFINISHED = object()

# Its stub knows commands of one argument only.
_pack = cast(Callable[[tuple[Argument, ...]], bytes], hiredis.pack_command)


class RedisUnavailable(ConnectionError):
    """Redis does not answer; whether the command took effect is unknown."""

    def __init__(self, why: str) -> None:
        super().__init__(f"redis is unavailable: {why}")


class RedisScriptError(Exception):
    """Redis refused a command, or a script refused its arguments: repeating it changes nothing."""

    @property
    def code(self) -> str:
        """The first word of the error: NOSCRIPT, WRONGTYPE, TOLLGATE …"""
        return str(self).partition(" ")[0]


class Wire(asyncio.Protocol):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_lost: "Callable[[Wire], None]",
        *,
        command_timeout_s: float,
        pending_max: int,
    ) -> None:
        self._loop = loop
        self._on_lost = on_lost
        self._command_timeout_s = command_timeout_s
        self._pending_max = pending_max
        self._reader = hiredis.Reader(notEnoughData=_UNFINISHED)
        self._unanswered: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._issued = self._answered = 0
        # (deadline, how many commands had been issued by then): one for each write, not for each command.
        self._deadlines: deque[tuple[float, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._why_lost = ""
        self.lost: asyncio.Future[str] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    @property
    def pending(self) -> int:
        return len(self._unanswered)

    def command(self, *arguments: Argument) -> asyncio.Future[Any]:
        """Send one command; the future is its reply. Raises `RedisUnavailable` if nothing was sent."""
        if self._transport is None or self._why_lost:
            raise RedisUnavailable(self._why_lost or "not connected")
        if len(self._unanswered) >= self._pending_max:
            raise RedisUnavailable("too many commands are unanswered")
        packed = _pack(arguments)
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        self._unanswered.append(future)
        self._issued += 1
        return future

    def _flush(self) -> None:
        if self._transport is None or self._why_lost:
            return
        self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
        self._out.clear()
        deadline = self._loop.time() + self._command_timeout_s
        self._deadlines.append((deadline, self._issued))
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._check_deadline, False)

    def data_received(self, data: bytes) -> None:
        reader, unanswered = self._reader, self._unanswered
        before = len(unanswered)
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _UNFINISHED:
                if not unanswered:
                    self.abort("Redis sent a reply that nothing asked for")
                    return
                future = unanswered.popleft()
                if isinstance(reply, hiredis.ReplyError):
                    self._fail_one(future, str(reply))
                elif not future.done():  # whoever waited may be gone
                    future.set_result(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"Redis sent what is no reply: {error}")
            return
        self._answered += before - len(unanswered)
        deadlines = self._deadlines
        while deadlines and deadlines[0][1] <= self._answered:
            deadlines.popleft()

    def _fail_one(self, future: asyncio.Future[Any], message: str) -> None:
        code = message.partition(" ")[0]
        if code in _PASSING_CODES:
            _fail(future, RedisUnavailable(code))
            if code in _WRONG_SERVER_CODES:
                self.abort(f"Redis answers {code}")
        else:
            _fail(future, RedisScriptError(message))

    def _check_deadline(self, is_last_check: bool) -> None:
        self._timer = None
        if not self._deadlines or self._why_lost:
            return
        deadline = self._deadlines[0][0]
        if deadline > self._loop.time():
            self._timer = self._loop.call_at(deadline, self._check_deadline, False)
        elif is_last_check:
            self.abort(f"no reply within {self._command_timeout_s * 1000:.0f} ms")
        else:
            self._timer = self._loop.call_later(READING_GRACE_S, self._check_deadline, True)

    def abort(self, why: str) -> None:
        """Give the connection up: everything unanswered fails now."""
        if self._why_lost:
            return
        self._why_lost = why
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._out.clear()
        self._deadlines.clear()
        unanswered, self._unanswered = self._unanswered, deque()
        for future in unanswered:
            _fail(future, RedisUnavailable(why))
        self.lost.set_result(why)
        self._on_lost(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort(f"connection lost: {exc}" if exc else "connection closed")


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        # Retrieved here: a caller that has gone need not be warned about.
        future.exception()
