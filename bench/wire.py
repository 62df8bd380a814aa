"""The bytes of the bench: what a caller sends, and what the canned upstream answers.

Pure. How many events a stream has, and how far apart, travels inside the prompt, since that is the one place which
every gateway, also one that rewrites bodies, passes on.
"""

import json
import re

PATH = "/v1/chat/completions"
MODEL = "gpt-4o-mini"
PLAIN_REQUEST_BYTES, PLAIN_ANSWER_BYTES, EVENT_BYTES = 400, 900, 250
OUTPUT_TOKENS_MAX = 512

_PLAN = re.compile(rb"bench:(\d+):(\d+)")
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_INCLUDE_USAGE = re.compile(rb'"include_usage"\s*:\s*true')


def request_body(*, stream: bool, events: int = 0, pace_ms: int = 0, size_bytes: int = PLAIN_REQUEST_BYTES) -> bytes:
    """One chat completion of `size_bytes`; a stream asks for `events`, one each `pace_ms`."""
    prompt = f"bench:{events}:{pace_ms} "
    shortest = _json(_request(prompt, stream))
    return _json(_request(prompt + filler(size_bytes - len(shortest)), stream))


def head(key: str, body: bytes, *, host: str, more: tuple[tuple[str, str], ...] = ()) -> bytes:
    """The header block that an OpenAI SDK sends, shortened to what most callers have."""
    extra = "".join(f"{name}: {value}\r\n" for name, value in more)
    return (
        f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Accept: application/json\r\nUser-Agent: AsyncOpenAI/Python 2.8.0\r\nX-Stainless-Lang: python\r\n"
        f"Content-Length: {len(body)}\r\n{extra}\r\n"
    ).encode()


def filler(length: int) -> str:
    """Text as people write it, for what reads it takes longer over some kinds of text than over others."""
    words = "the quick brown fox jumps over the lazy dog, "
    return (words * (length // len(words) + 1))[:length]


def asks_for_stream(body: bytes) -> bool:
    return _STREAM.search(body) is not None


def asks_for_usage(body: bytes) -> bool:
    return _INCLUDE_USAGE.search(body) is not None


def stream_plan(body: bytes) -> tuple[int, int]:
    """How many events, and how many ms between two of them."""
    found = _PLAN.search(body)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def answer() -> bytes:
    """A plain completion of `PLAIN_ANSWER_BYTES`, with its usage."""
    return _json(_completion("x" * (PLAIN_ANSWER_BYTES - len(_json(_completion(""))))))


def event() -> bytes:
    """One content event of `EVENT_BYTES`. `usage` is null in each, as OpenAI sends it when a usage event is to come; so
    a caller who did not ask for one gets the same bytes through a gateway that asked on its own behalf."""
    return _sse(_chunk("x" * (EVENT_BYTES - len(_sse(_chunk(""))))))


def usage_event(events: int) -> bytes:
    return _sse(_chunk(None) | {"choices": [], "usage": _usage(events)})


DONE = b"data: [DONE]\n\n"


def stream_bytes(events: int) -> int:
    """The length of the body that a caller of an `events` long stream gets who did not ask for usage."""
    return events * len(event()) + len(DONE)


def _request(prompt: str, stream: bool) -> dict[str, object]:
    return {
        "model": MODEL,
        "messages": [{"role": "system", "content": "You answer at once."}, {"role": "user", "content": prompt}],
        "max_completion_tokens": OUTPUT_TOKENS_MAX,
        "stream": stream,
    }


def _completion(text: str) -> dict[str, object]:
    choice = {"index": 0, "message": _message(text), "logprobs": None, "finish_reason": "stop"}
    return _envelope("chat.completion") | {"choices": [choice], "usage": _usage(100)}


def _message(text: str) -> dict[str, object]:
    return {"role": "assistant", "content": text, "refusal": None, "annotations": []}


def _chunk(text: str | None) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return _envelope("chat.completion.chunk") | {"choices": [choice], "usage": None}


def _envelope(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-bench", "object": kind, "created": 1, "model": MODEL, "service_tier": "default"}


def _usage(output: int) -> dict[str, object]:
    return {
        "prompt_tokens": 90,
        "completion_tokens": output,
        "total_tokens": 90 + output,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _sse(value: object) -> bytes:
    return b"data: " + _json(value) + b"\n\n"
