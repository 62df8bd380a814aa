"""What happens to an answer's body on its way: decoded for the meter, cleared of the upstream's key. Without I/O."""

from collections.abc import Callable

from gateway.core.calls.encodings import CorruptEncoding, Decode, UnknownEncoding, decoder
from gateway.core.calls.meter import Meter, Reading, TailMeter, read_answer
from gateway.proxy.http1.answer import Answer
from gateway.proxy.redact import Redactor

Transform = Callable[[bytes], bytes]


class Coding:
    """The content coding of an answer. `decode` is None when there is nothing to decode, or nobody here can."""

    __slots__ = ("decode", "is_known")

    def __init__(self, answer: Answer) -> None:
        self.is_known = True
        self.decode: Decode | None = None
        if b"content-encoding" not in answer.fields:
            return
        codings = [value for name, value in answer.headers if name.lower() == b"content-encoding"]
        try:
            self.decode = decoder(b",".join(codings).decode("latin-1"))
        except UnknownEncoding:
            self.is_known = False


def read_document(body: bytes, coding: Coding) -> tuple[Reading, bytes]:
    """Read a whole answer; returns it with its body decoded, if that is possible."""
    if coding.is_known:
        try:
            plain = coding.decode(body) if coding.decode else body
        except CorruptEncoding:
            pass
        else:
            return read_answer(plain), plain
    reading = Reading()
    reading.usage_unreadable = True
    return reading, body


def streamed(meter: Meter, coding: Coding, redactor: Redactor, *, edits: bool) -> Transform:
    """How a piece of an event stream is metered and passed on; if `edits`, decoded, with the usage event taken out.

    The function raises `CorruptEncoding` if it edits.
    """
    decode, feed, clear = coding.decode, meter.feed, redactor.feed
    if not coding.is_known:
        # It is passed on whole: there is nothing to meter, and nothing to take out.
        meter.reading.usage_unreadable = True
        return _unchanged
    if decode is None:
        return lambda data: clear(feed(data))
    if edits:
        return lambda data: clear(feed(decode(data)))
    return beside(meter, coding, _unchanged)


def beside(meter: Meter | TailMeter, coding: Coding, passed: Transform) -> Transform:
    """`passed`, while the meter reads a decoded copy; a coding that turns out corrupt only costs the reading."""
    decode, feed = coding.decode, meter.feed
    is_read = coding.is_known
    meter.reading.usage_unreadable = not is_read

    def transform(data: bytes) -> bytes:
        nonlocal is_read
        if is_read:
            try:
                feed(decode(data) if decode else data)
            except CorruptEncoding:
                is_read = False
                meter.reading.usage_unreadable = True
        return passed(data)

    return transform


def _unchanged(data: bytes) -> bytes:
    return data
