"""Meters: what an answer says about its own cost, read from the same bytes that the caller gets.

Here: what every meter tells, and those of whole documents; `stream_meters` has those of event streams.
"""

import re
from typing import Protocol

import msgspec

from gateway.core.calls.usage import ReportedUsage

TAIL_BYTES = 64 * 1024
LOOSE_TEXTS_MAX = 32


class Delivered:
    """The output that reached the caller, for when upstream tells no usage: tokens counted, text still uncounted."""

    __slots__ = ("_pieces", "_texts", "text_chars", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.text_chars = 0
        self._texts: list[str] = []
        self._pieces = 0  # that came since the last count

    def add(self, text: str) -> None:
        self._texts.append(text)
        self.text_chars += len(text)
        self._pieces += 1
        if len(self._texts) > LOOSE_TEXTS_MAX:  # a short string takes more room than its text
            self._texts = ["".join(self._texts)]

    def take_texts(self) -> list[str]:
        """Hand out the uncounted text, to be counted by the tokenizer and added to `tokens`."""
        texts, self._texts, self.text_chars, self._pieces = self._texts, [], 0, 0
        return ["".join(texts)] if texts else []

    @property
    def tokens_about(self) -> int:
        """A cheap running figure for the progress of a hold: one token an event, or four characters a token."""
        return self.tokens + max(self._pieces, self.text_chars // 4)

    @property
    def anything(self) -> bool:
        return self.tokens > 0 or self.text_chars > 0


class Reading:
    """What an answer has said so far of its usage."""

    __slots__ = (
        "complete",
        "delivered",
        "error",
        "failed",
        "model",
        "service_tier",
        "usage",
        "usage_final",
        "usage_unreadable",
    )

    def __init__(self) -> None:
        self.usage: ReportedUsage | None = None
        self.usage_final = False  # nothing can be used any more after what `usage` says
        self.usage_unreadable = False  # a usage was there, and was not one
        self.model = ""
        self.service_tier: str | None = None
        self.complete = False  # the answer's own end was seen
        self.failed = False  # upstream reported an error inside the answer
        self.error = ""  # its code, or its type
        self.delivered = Delivered()


class Meter(Protocol):
    """Bytes of an answer's body in (decoded from content codings), bytes for the caller out."""

    @property
    def reading(self) -> Reading:
        """What everything that was fed has said; always the same object."""
        ...

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class _Answer(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"null")
    model: str | None = None
    service_tier: str | None = None
    status: object = None  # of a response; "failed" comes with 200
    error: object = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_usage = msgspec.json.Decoder(ReportedUsage | None).decode


def read_answer(body: bytes) -> Reading:
    """Read a whole JSON answer. What cannot be read leaves `usage` None: the settlement decides what that means."""
    reading = Reading()
    try:
        answer = _decode_answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return reading
    reading.complete = True
    reading.model = answer.model or ""
    reading.service_tier = answer.service_tier
    take_usage(reading, answer.usage)
    reading.usage_final = True
    if answer.status == "failed":
        reading.failed, reading.error = True, error_code_of(answer.error)
    return reading


def take_usage(reading: Reading, raw: msgspec.Raw) -> None:
    """Note a `usage` value as it stands in the JSON."""
    try:
        usage = _decode_usage(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        reading.usage_unreadable = True
    else:
        reading.usage = usage or reading.usage


def error_code_of(error: object) -> str:
    """The code of an error as OpenAI reports it, else its type; "" if it has neither."""
    found = (error.get("code") or error.get("type")) if isinstance(error, dict) else None
    return found if isinstance(found, str) else ""


_FIELD = re.compile(rb'(?<!\\)"(usage|model|service_tier)"\s*:\s*')


class TailMeter:
    """Meters a JSON answer too large to hold, from its last bytes: OpenAI writes `usage` after the bulk."""

    def __init__(self) -> None:
        self.reading = Reading()
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        return data

    def finish(self) -> bytes:
        for field in reversed(list(_FIELD.finditer(self._tail))):
            # Only a top-level field leaves a rest that closes exactly one object.
            document = read_answer(b"{" + self._tail[field.start() :])
            if document.complete and document.usage is not None:
                self.reading = document
                break
        return b""
