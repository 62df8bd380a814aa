"""Calls: one request to a metered endpoint, as read from its body.

Only the fields that admission, estimate and metering need are read; everything else is the upstream's to judge.
"""

import json
import re
from enum import StrEnum
from typing import Any

import msgspec

from gateway.core.errors import FeatureNotAllowed, InvalidRequest

# No vendor accepts more; a larger number is a mistake or an attack on the arithmetic.
OUTPUT_LIMIT_TOKENS_MAX = 10_000_000
CHOICES_MAX = 128
# More than any prompt needs, and few enough to be looked at without holding up other calls.
QUOTES_MAX = 1_000_000

# Tools that run in the caller's code cost tokens only; hosted tools have prices of their own that usage does not show.
METERED_TOOL_TYPES = frozenset({"function", "custom"})


class Endpoint(StrEnum):
    """The metered endpoints, by path."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    RESPONSES = "/v1/responses"
    EMBEDDINGS = "/v1/embeddings"


# What a completion that names no limit may be long (OpenAI's reference, /v1/completions, `max_tokens`).
COMPLETION_TOKENS = 16


class Call(msgspec.Struct, frozen=True, gc=False):
    """A metered call. `body` is what goes upstream; `content` the raw JSON values that hold text."""

    endpoint: Endpoint
    model: str
    body: bytes
    stream: bool
    choices: int
    output_limit: int | None  # tokens per choice, as asked
    service_tier: str | None
    strip_usage_event: bool  # the usage event was injected: the caller did not ask for it
    unknown_context: bool  # the upstream adds input that the body does not show
    content: tuple[bytes, ...]  # raw JSON of messages, input, prompt, instructions …
    extras: tuple[bytes, ...]  # raw JSON of tools, response_format …: counted by bytes
    may_hold_parts: bool = True  # False: it names nothing that only bodies with images, files and the like name

    @property
    def output_limit_upstream(self) -> int | None:
        """The output limit that upstream goes by: as asked, or a completion's own; None: the model's.

        A limit of null is named; what is spelt with escapes may be.
        """
        if self.output_limit is not None or self.endpoint is not Endpoint.COMPLETIONS:
            return self.output_limit
        is_named = b'"max_tokens"' in self.body or b"\\u" in self.body
        return None if is_named else COMPLETION_TOKENS


_ABSENT, _NULL = msgspec.Raw(b""), msgspec.Raw(b"null")


class _Body(msgspec.Struct):
    model: str
    stream: bool | None = None
    stream_options: msgspec.Raw = _NULL
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    service_tier: str | None = None
    background: bool | None = None
    messages: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    prompt: msgspec.Raw = _ABSENT
    suffix: msgspec.Raw = _ABSENT
    instructions: msgspec.Raw = _ABSENT
    tools: msgspec.Raw = _NULL
    functions: msgspec.Raw = _ABSENT
    response_format: msgspec.Raw = _ABSENT
    text: msgspec.Raw = _ABSENT
    prediction: msgspec.Raw = _ABSENT
    previous_response_id: str | None = None
    conversation: msgspec.Raw = _NULL
    web_search_options: msgspec.Raw = _NULL


class _Tool(msgspec.Struct):
    type: str = ""


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_tools = msgspec.json.Decoder(list[_Tool] | None).decode
_decode_stream_options = msgspec.json.Decoder(_StreamOptions | None).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_DECIDING_NAMES = frozenset(name.encode() for name in _Body.__struct_fields__)
# Without one of these a body is text only (see content.py).
_NAMES_OF_PARTS = frozenset(
    {b"type", b"id", b"file_id", b"file_url", b"file_data", b"image_url", b"input_audio", b"prediction"}
)
_NAME = re.compile(rb'"([a-z_]++)"\s*+:')
# A name may be spelt with escapes of its letters (U+0040 … U+007F).
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")
# Possessive, so linear on whatever a hostile caller writes; group 1 tells a name from a value.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"(\s*+:)?', re.DOTALL)

_OUTPUT_LIMITS: dict[Endpoint, tuple[str, ...]] = {
    Endpoint.CHAT: ("max_tokens", "max_completion_tokens"),
    Endpoint.COMPLETIONS: ("max_tokens",),
    Endpoint.RESPONSES: ("max_output_tokens",),
    Endpoint.EMBEDDINGS: (),
}

_INCLUDE_USAGE = b'"stream_options":{"include_usage":true},'


def parse(endpoint: Endpoint, body: bytes) -> Call:
    """Read a metered call from its body; raises `InvalidRequest` or `FeatureNotAllowed`, naming the field."""
    try:
        return _parse(endpoint, body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"Invalid request body: {error}", param=_field_of(str(error))) from error
    # A ValueError is text that is not UTF-8, or a number of thousands of digits.
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidRequest("The request body is not valid JSON.") from error


def _parse(endpoint: Endpoint, body: bytes) -> Call:
    if len(body) > QUOTES_MAX and body.count(b'"') > QUOTES_MAX:
        raise InvalidRequest(f"The request body holds more than {QUOTES_MAX // 2:,} strings; split it.")
    fields = _decode_body(body)
    _refuse_unmetered_features(fields)
    stream = bool(fields.stream)
    names = _NAME.findall(body)
    has_escapes = b"\\" in body and b"\\u00" in body
    sent, injected = _unambiguous(body, names, has_escapes), False
    if stream and endpoint in (Endpoint.CHAT, Endpoint.COMPLETIONS):
        sent, injected = _with_usage_event(sent, fields.stream_options)
    return Call(
        endpoint=endpoint,
        model=fields.model,
        body=sent,
        stream=stream,
        choices=_choices(endpoint, fields),
        output_limit=_output_limit(endpoint, fields),
        service_tier=fields.service_tier,
        strip_usage_event=injected,
        unknown_context=_has_unknown_context(endpoint, fields),
        content=_present(fields.messages, fields.input, fields.prompt, fields.suffix, fields.instructions),
        may_hold_parts=not _NAMES_OF_PARTS.isdisjoint(names)
        or (has_escapes and _ESCAPED_LETTER.search(body) is not None),
        extras=_present(fields.tools, fields.functions, fields.response_format, fields.text, fields.prediction),
    )


def _field_of(message: str) -> str | None:
    """The field that msgspec's message names.

    >>> _field_of("Expected `int`, got `str` - at `$.max_tokens`"), _field_of("Expected `object`, got `array`")
    ('max_tokens', None)
    >>> _field_of("Object missing required field `model`")
    'model'
    """
    before, _, path = message.rpartition(" - at `$.")
    if before:
        return path.rstrip("`")
    _, missing, name = message.rpartition("missing required field `")
    return name.rstrip("`") if missing else None


def _refuse_unmetered_features(fields: _Body) -> None:
    if fields.background:
        raise FeatureNotAllowed("Background responses are not offered by this gateway.", param="background")
    if bytes(fields.web_search_options) != b"null":
        raise FeatureNotAllowed("Web search is not offered by this gateway.", param="web_search_options")
    if fields.tools is _NULL:
        return
    try:
        tools = _decode_tools(fields.tools)
        if tools:
            json.loads(bytes(fields.tools), object_pairs_hook=_no_name_twice)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"Invalid tools: {error}", param="tools") from error
    for tool in tools or ():
        if tool.type not in METERED_TOOL_TYPES:
            raise FeatureNotAllowed(
                f"Hosted tool {tool.type[:64]!r} is not offered by this gateway; function and custom tools are.",
                param="tools",
            )


def _unambiguous(body: bytes, names: list[bytes], has_escapes: bool) -> bytes:
    """`body` itself, unless it names a field twice: then rewritten to what was read here, since upstream's parser may
    keep the first where ours keeps the last, and a call must be held for what upstream will do.
    """
    deciding = [name for name in names if name in _DECIDING_NAMES]
    if len(deciding) == len(set(deciding)) and not (has_escapes and _has_escaped_name(body)):
        return body
    fields = _decode_fields(body)
    # The names may repeat inside of values only: the outermost object is reduced to the number of its members.
    members = json.loads(body, object_pairs_hook=len, parse_int=str, parse_float=str)
    return body if members == len(fields) else msgspec.json.encode(fields)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> None:
    """Upstream's parser may keep the first of two, so a hosted tool could hide behind a metered one."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("an object names a field twice")


def _has_escaped_name(body: bytes) -> bool:
    return any(b"\\" in found[0] for found in _STRING.finditer(body) if found[1])


def _choices(endpoint: Endpoint, fields: _Body) -> int:
    if endpoint in (Endpoint.RESPONSES, Endpoint.EMBEDDINGS):
        return 1
    choices = 1 if fields.n is None else fields.n
    if endpoint is Endpoint.COMPLETIONS and fields.best_of is not None:
        choices = max(choices, fields.best_of)
    for name, asked in (("n", fields.n), ("best_of", fields.best_of)):
        if asked is not None and not 1 <= asked <= CHOICES_MAX:
            raise InvalidRequest(f"{name} must be between 1 and {CHOICES_MAX}.", param=name)
    if endpoint is Endpoint.COMPLETIONS:
        choices *= _prompts(fields.prompt)
    return choices


def _prompts(prompt: bytes | msgspec.Raw) -> int:
    """How many prompts a completions call carries: each gets its own `n` answers."""
    raw = bytes(prompt)
    if not raw.startswith(b"["):
        return 1
    prompts = msgspec.json.decode(raw)
    return len(prompts) if prompts and isinstance(prompts[0], str | list) else 1


def _output_limit(endpoint: Endpoint, fields: _Body) -> int | None:
    """The asked output limit, in tokens per choice. Where an endpoint knows two names, the larger is the bound."""
    least = 0 if endpoint is Endpoint.COMPLETIONS else 1
    asked: int | None = None
    for name in _OUTPUT_LIMITS[endpoint]:
        limit = getattr(fields, name)
        if limit is None:
            continue
        if not least <= limit <= OUTPUT_LIMIT_TOKENS_MAX:
            raise InvalidRequest(f"{name} must be between {least} and {OUTPUT_LIMIT_TOKENS_MAX}.", param=name)
        asked = limit if asked is None else max(asked, limit)
    return asked


def _has_unknown_context(endpoint: Endpoint, fields: _Body) -> bool:
    if endpoint is not Endpoint.RESPONSES:
        return False
    return (
        fields.previous_response_id is not None
        or bytes(fields.conversation) != b"null"
        or bytes(fields.prompt) not in (b"", b"null")
    )


def _with_usage_event(body: bytes, options: msgspec.Raw) -> tuple[bytes, bool]:
    """Ask for the usage event; returns the body to send, and whether the caller had not asked for it."""
    try:
        asked = _decode_stream_options(options)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"Invalid stream_options: {error}", param="stream_options") from error
    if asked is not None and asked.include_usage:
        return body, False
    if bytes(options) == b"null" and b'"stream_options"' not in body:
        start = body.index(b"{") + 1
        return body[:start] + _INCLUDE_USAGE + body[start:], True
    fields = _decode_fields(body)
    given: dict[str, Any] = msgspec.json.decode(options) or {}
    fields["stream_options"] = msgspec.Raw(msgspec.json.encode(given | {"include_usage": True}))
    return msgspec.json.encode(fields), True


def _present(*values: msgspec.Raw) -> tuple[bytes, ...]:
    given = [bytes(value) for value in values if value is not _ABSENT and value is not _NULL]
    return tuple([raw for raw in given if raw != b"null"])
