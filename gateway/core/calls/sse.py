"""Server-sent events, split as they arrive: raw bytes in, whole raw events out, nothing lost and nothing changed.

Source: WHATWG HTML, "Interpreting an event stream": lines end in LF, CR or CRLF; a blank line ends an event.
"""

import re

_ANY_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?=[^\n]))(?:\r\n|\n|\r(?=[^\n]))")
_LINE = re.compile(rb"\r\n|\n|\r")
_BETWEEN_DATA = re.compile(rb"\n\n(?:event: [^\r\n]*\n)?data: ")


class EventSplitter:
    """Cuts a byte stream after each event's blank line. Holds at most one unfinished event, of `event_bytes_max`."""

    __slots__ = ("_event_bytes_max", "_oversized", "_tail")

    def __init__(self, event_bytes_max: int) -> None:
        self._tail = b""
        self._event_bytes_max = event_bytes_max
        self._oversized = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the raw events that `data` completes, in order; together with the tail they equal the input.

        An event beyond the bound is given out in raw pieces as it comes: it is passed on, never held, never read.
        """
        if self._tail:
            data = self._tail + data
        if b"\r" in data:
            events, rest = _split_any(data)
        else:
            *events, rest = data.split(b"\n\n")
            events = [event + b"\n\n" for event in events]
        if events and self._oversized:
            self._oversized = False
            events[0] = _unreadable(events[0])
        if len(rest) > self._event_bytes_max:
            self._oversized = True
            # The last bytes stay, since they may be the first half of the blank line.
            events.append(_unreadable(rest[:-3]))
            rest = rest[-3:]
        self._tail = rest
        return events

    @property
    def is_between_events(self) -> bool:
        return not self._tail

    def take_tail(self) -> bytes:
        """What came after the last blank line: an event that the end of the stream left unfinished."""
        tail, self._tail = self._tail, b""
        return tail


class _Unreadable(bytes):
    """A piece of an oversized event: to be passed on, but holding no event."""


def _unreadable(piece: bytes) -> bytes:
    return _Unreadable(piece)


def _split_any(data: bytes) -> tuple[list[bytes], bytes]:
    events, start = [], 0
    for blank in _ANY_BLANK_LINE.finditer(data):
        events.append(data[start : blank.end()])
        start = blank.end()
    return events, data[start:]


def event_data(event: bytes) -> bytes:
    """The `data` of a raw event: its data lines without their field name, joined by LF; b"" when it has none.

    >>> event_data(b"event: response.completed\\ndata: {}\\n\\n"), event_data(b": keep-alive\\n\\n")
    (b'{}', b'')
    """
    if isinstance(event, _Unreadable):
        return b""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2:
        return event[6:-2]
    lines = [line[5:] for line in _LINE.split(event) if line.startswith(b"data:")]
    return b"\n".join(line[1:] if line.startswith(b" ") else line for line in lines)


def as_array(events: bytes) -> bytes:
    r"""Write whole events whose data are JSON values as one JSON array of them; what they are not makes no valid JSON.

    >>> as_array(b'event: a\ndata: {"a":1}\n\ndata: {"b":2}\n\n'), as_array(b"data: [DONE]\n\n")
    (b'[{"a":1},{"b":2}]', b'[[DONE]]')
    """
    if not events.endswith(b"\n\n"):
        return b""
    return b"[%b]" % _BETWEEN_DATA.sub(b",", b"\n\n" + events[:-2])[1:]
