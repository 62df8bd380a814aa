"""Chat completions and completions: plain bodies and stream events, byte for byte as OpenAI sends them.

Each event comes with the number of words that it brings, so that a cut stream is accounted for exactly.
"""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from gateway.sandbox.openai.asks import CHAT
from gateway.sandbox.openai.plans import Plan
from gateway.sandbox.openai.tokens import WORDS, pieces, text_of

FINGERPRINT = b"fp_sandbox0001"
_PADDING = "kQ3vTzH8pLx2Wn7R"  # OpenAI's is random; ours makes every delta the same size
_SOUND = b"AAAAAAAA"  # base64 of silence


class Event(NamedTuple):
    """One event of a stream, as bytes; how many words it brings, and whether it reports the usage."""

    data: bytes
    words: int = 0
    usage: bool = False


DONE = Event(b"data: [DONE]\n\n")


def padding(text: str) -> bytes:
    """The obfuscation that pads an event with `text` to the size of all others."""
    return _PADDING[len(text) :].encode()


def completion_body(plan: Plan) -> bytes:
    """The unstreamed answer of chat completions or completions."""
    kind, prefix = (b"chat.completion", b"chatcmpl") if plan.ask.endpoint == CHAT else (b"text_completion", b"cmpl")
    choice = _message_choice if plan.ask.endpoint == CHAT else _text_choice
    choices = b",".join([choice(plan, index) for index in range(plan.ask.choices)])
    usage = b"" if plan.usage is None else b',"usage":%b' % plan.usage
    return b'{"id":"%b-%b","object":"%b","created":%d,"model":%b,"choices":[%b]%b%b,"system_fingerprint":"%b"}' % (
        prefix,
        plan.answer_id.encode(),
        kind,
        plan.created_s,
        plan.model,
        choices,
        usage,
        _tier(plan),
        FINGERPRINT,
    )


def _tier(plan: Plan) -> bytes:
    return b',"service_tier":"%b"' % plan.tier.encode() if plan.ask.endpoint == CHAT else b""


def _message_choice(plan: Plan, index: int) -> bytes:
    text = text_of(plan.offset_of(index), plan.visible).encode()
    content, audio = b'"%b"' % text, b""
    if plan.ask.audio:
        spoken = (plan.answer_id.encode(), _SOUND * plan.visible, plan.created_s + 3600, text)
        content, audio = b"null", b',"audio":{"id":"audio_%b","data":"%b","expires_at":%d,"transcript":"%b"}' % spoken
    message = b'{"role":"assistant","content":%b,"refusal":null,"annotations":[]%b}' % (content, audio)
    numbered = (index, message, plan.finish_reason)
    return b'{"index":%d,"message":%b,"logprobs":null,"finish_reason":"%b"}' % numbered


def _text_choice(plan: Plan, index: int) -> bytes:
    text = text_of(plan.offset_of(index), plan.visible).encode()
    return b'{"text":"%b","index":%d,"logprobs":null,"finish_reason":"%b"}' % (text, index, plan.finish_reason)


class _Chunks:
    """The parts that all chunks of one stream share."""

    def __init__(self, plan: Plan) -> None:
        kind, prefix = (
            (b"chat.completion.chunk", b"chatcmpl") if plan.ask.endpoint == CHAT else (b"text_completion", b"cmpl")
        )
        head = b'data: {"id":"%b-%b","object":"%b","created":%d,"model":%b%b,"system_fingerprint":"%b","choices":['
        identity = (prefix, plan.answer_id.encode(), kind, plan.created_s, plan.model)
        self.head = head % (*identity, _tier(plan), FINGERPRINT)
        self.tail = b',"usage":null' if plan.ask.include_usage else b""
        self.obfuscate = plan.ask.obfuscate

    def event(self, choice: bytes, text: str = "", words: int = 0) -> Event:
        return Event(self._closed(self.head + choice + b"]" + self.tail, text), words)

    def usage_event(self, usage: bytes) -> Event:
        return Event(self._closed(self.head + b'],"usage":' + usage, ""), usage=True)

    def _closed(self, chunk: bytes, text: str) -> bytes:
        if self.obfuscate:
            return chunk + b',"obfuscation":"' + padding(text) + b'"}\n\n'
        return chunk + b"}\n\n"


def completion_events(plan: Plan) -> Iterator[Event]:
    """The streamed answer: choices take turns, then each finishes, then the usage if it was asked for."""
    chunks = _Chunks(plan)
    chat = plan.ask.endpoint == CHAT
    choices = range(plan.ask.choices)
    if chat:
        content = b"" if plan.ask.audio else b'"content":"",'
        delta = b'"delta":{"role":"assistant",%b"refusal":null},"logprobs":null,"finish_reason":null}' % content
        for index in choices:
            yield chunks.event(b'{"index":%d,' % index + delta)
    yield from _word_events(plan, chunks)
    for index in choices:
        if chat:
            finished = b'{"index":%d,"delta":{},"logprobs":null,"finish_reason":"%b"}'
        else:
            finished = b'{"text":"","index":%d,"logprobs":null,"finish_reason":"%b"}'
        yield chunks.event(finished % (index, plan.finish_reason))
    if plan.ask.include_usage and plan.usage is not None:
        yield chunks.usage_event(plan.usage)
    yield DONE


def _word_events(plan: Plan, chunks: _Chunks) -> Iterator[Event]:
    before, after = _around_a_word(plan)
    said = [(index, pieces(plan.offset_of(index))) for index in range(plan.ask.choices)]
    for position in range(plan.visible):
        for index, words in said:
            word = words[position % len(WORDS)] if position else words[0][1:]
            yield chunks.event(before % index + word.encode() + after, word, 1)


def _around_a_word(plan: Plan) -> tuple[bytes, bytes]:
    """What stands before a word (with the choice's number to fill in) and after it."""
    end = b',"logprobs":null,"finish_reason":null}'
    if plan.ask.endpoint != CHAT:
        return b'{"index":%d,"text":"', b'"' + end
    if not plan.ask.audio:
        return b'{"index":%d,"delta":{"content":"', b'"}' + end
    spoken = msgspec.json.encode(f"audio_{plan.answer_id}")
    before = b'{"index":%d,"delta":{"audio":{"id":' + spoken + b',"transcript":"'
    return before, b'","data":"' + _SOUND + b'"}}' + end
