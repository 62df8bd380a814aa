"""Asks: what a request's body asks for, checked as OpenAI checks it; anything it would refuse raises `ApiError`."""

from typing import Any, TypeVar

import msgspec

from gateway.sandbox.openai import errors

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"

N_MAX = 128
OUTPUT_LIMIT_TOKENS_MAX = 2**31 - 1
UNKNOWN_MODEL_SUFFIX = "-does-not-exist"
_COMPLETIONS_LIMIT_TOKENS = 16  # the legacy endpoint's default
_TIERS = {
    None: "default",
    "auto": "default",
    "default": "default",
    "flex": "flex",
    "priority": "priority",
    "fast": "priority",
    "scale": "scale",
}
_NULL = msgspec.Raw(b"null")
_ABSENT = msgspec.Raw(b"")


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Text(msgspec.Struct):
    """What chat completions, completions and responses know between them."""

    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None
    best_of: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    service_tier: str | None = None
    modalities: list[str] | None = None
    reasoning_effort: str | None = None
    reasoning: msgspec.Raw = _NULL
    messages: msgspec.Raw = _ABSENT
    prompt: msgspec.Raw = _ABSENT
    suffix: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    instructions: msgspec.Raw = _NULL
    tools: msgspec.Raw = _ABSENT
    functions: msgspec.Raw = _ABSENT
    response_format: msgspec.Raw = _ABSENT
    text: msgspec.Raw = _ABSENT
    tool_choice: msgspec.Raw = _ABSENT
    parallel_tool_calls: bool | None = None
    metadata: msgspec.Raw = _ABSENT
    previous_response_id: str | None = None
    conversation: msgspec.Raw = _NULL
    temperature: float | None = None
    top_p: float | None = None


class TextAsk(msgspec.Struct, frozen=True, gc=False):
    """A request for text. `content` holds the raw JSON that counts as its prompt."""

    endpoint: str
    model: str
    content: list[bytes]
    stream: bool
    include_usage: bool
    obfuscate: bool
    limit: int | None  # output tokens of one choice
    choices: int  # as answered
    generated: int  # as generated: more than answered when `best_of` asks for it
    tier: str
    audio: bool
    reasons: bool
    echoed: dict[str, Any]  # what a response repeats of its request


_T = TypeVar("_T")
_text = msgspec.json.Decoder(_Text)


def read_text_ask(endpoint: str, body: bytes) -> TextAsk:
    """Read a call of chat completions, completions or responses."""
    fields = decode(_text, body)
    model = known_model(fields.model)
    content = _content(endpoint, fields)
    options = fields.stream_options or _StreamOptions()
    stream = bool(fields.stream)
    if fields.stream_options is not None and not stream:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise errors.parameter_invalid("stream_options", message, "invalid_value")
    if fields.service_tier not in _TIERS:
        message = (
            f"Invalid value: '{fields.service_tier}'. Supported values are: 'auto', 'default', 'flex', 'priority'."
        )
        raise errors.parameter_invalid("service_tier", message, "invalid_value")
    choices, generated = _choices(endpoint, fields, stream)
    return TextAsk(
        endpoint=endpoint,
        model=model,
        content=content,
        stream=stream,
        include_usage=bool(options.include_usage),
        obfuscate=options.include_obfuscation is not False,
        limit=_limit(endpoint, fields),
        choices=choices,
        generated=generated,
        tier="default" if endpoint == COMPLETIONS else _TIERS[fields.service_tier],
        audio=endpoint == CHAT and "audio" in (fields.modalities or ()),
        reasons=endpoint != COMPLETIONS and reasons(model) and not _effort_is_none(fields),
        echoed=_echoed(fields) if endpoint == RESPONSES else {},
    )


def reasons(model: str) -> bool:
    """Whether `model` thinks before it speaks, and is charged for that.

    >>> [reasons(model) for model in ("o3", "gpt-5-mini", "gpt-5-chat-latest", "gpt-4o")]
    [True, True, False, False]
    """
    if model.startswith("gpt-"):
        return model[4:5] in "56789" and "-chat" not in model
    return model[:1] == "o" and model[1:2].isdigit()


def writes_cache(model: str) -> bool:
    """Whether writing to the prompt cache is counted for `model`: from gpt-5.6 on.

    >>> [writes_cache(model) for model in ("gpt-5.6", "gpt-6.1-sol", "gpt-5", "gpt-4o")]
    [True, True, False, False]
    """
    return model.startswith(("gpt-5.6", "gpt-5.7", "gpt-5.8", "gpt-5.9", "gpt-6", "gpt-7", "gpt-8", "gpt-9"))


def decode(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    """Decode a body; what is not JSON, or of another type, raises OpenAI's 400."""
    try:
        body.decode()  # raw fields are passed on undecoded
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$.")
        param = path.rstrip("`").split("[")[0].split(".")[0] or None
        where = f" for '{param}'" if param else ""
        raise errors.parameter_invalid(param, f"Invalid type{where}: {what}.", "invalid_type") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.json_unreadable() from error


def known_model(model: str | None) -> str:
    """The model asked for; names that end in `-does-not-exist` are unknown, all others are served."""
    if not model:
        raise errors.model_missing()
    if model.endswith(UNKNOWN_MODEL_SUFFIX):
        raise errors.model_unknown(model)
    return model


def _content(endpoint: str, fields: _Text) -> list[bytes]:
    """The raw JSON of what counts as the prompt: the required field first."""
    counted: tuple[msgspec.Raw, ...]
    if endpoint == CHAT:
        _require_list("messages", fields.messages)
        counted = (fields.messages, fields.tools, fields.functions, fields.response_format)
    elif endpoint == COMPLETIONS:
        if bytes(fields.prompt) in (b"", b"null"):
            raise errors.parameter_missing("prompt")
        counted = (fields.prompt, fields.suffix)
    else:
        if bytes(fields.input) in (b"", b"null") and fields.previous_response_id is None:
            raise errors.parameter_missing("input")
        counted = (fields.input, fields.instructions, fields.tools, fields.text)
    return [raw for raw in map(bytes, counted) if raw and raw != b"null"]


def _require_list(name: str, raw: msgspec.Raw) -> None:
    text = bytes(raw)
    if text in (b"", b"null"):
        raise errors.parameter_missing(name)
    if text[:1] != b"[":
        raise errors.parameter_invalid(
            name, f"Invalid type for '{name}': expected an array of objects.", "invalid_type"
        )
    if text[1:64].lstrip()[:1] == b"]":
        message = f"Invalid '{name}': empty array. Expected an array with minimum length 1."
        raise errors.parameter_invalid(name, message, "empty_array")


def _choices(endpoint: str, fields: _Text, stream: bool) -> tuple[int, int]:
    if endpoint == RESPONSES:
        return 1, 1
    for name, asked in (("n", fields.n), ("best_of", fields.best_of)):
        if asked is not None and not 1 <= asked <= N_MAX:
            message = f"Invalid '{name}': expected a value between 1 and {N_MAX}, but got {asked} instead."
            raise errors.parameter_invalid(name, message, "integer_out_of_range")
    n = fields.n or 1
    if endpoint == CHAT:
        return n, n
    best_of = n if fields.best_of is None else fields.best_of
    if best_of < n or (stream and best_of > n):
        message = "best_of must be at least n, and cannot be larger when streaming."
        raise errors.parameter_invalid("best_of", message, "invalid_value")
    prompts = _prompts(bytes(fields.prompt))
    return n * prompts, best_of * prompts


def _prompts(raw: bytes) -> int:
    if raw[:1] != b"[":
        return 1
    prompts = msgspec.json.decode(raw)
    return len(prompts) if prompts and isinstance(prompts[0], str | list) else 1


def _limit(endpoint: str, fields: _Text) -> int | None:
    if endpoint == RESPONSES:
        return _at_least(1, "max_output_tokens", fields.max_output_tokens)
    if endpoint == COMPLETIONS:
        limit = _at_least(0, "max_tokens", fields.max_tokens)
        return _COMPLETIONS_LIMIT_TOKENS if limit is None else limit
    if fields.max_tokens is not None and fields.max_completion_tokens is not None:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise errors.parameter_invalid("max_tokens", message, "invalid_parameter_combination")
    limit = _at_least(1, "max_completion_tokens", fields.max_completion_tokens)
    return _at_least(1, "max_tokens", fields.max_tokens) if limit is None else limit


def _at_least(least: int, name: str, value: int | None) -> int | None:
    if value is not None and value < least:
        message = (
            f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {value} instead."
        )
        raise errors.parameter_invalid(name, message, "integer_below_min_value")
    if value is not None and value > OUTPUT_LIMIT_TOKENS_MAX:
        message = f"Invalid '{name}': integer above maximum value. Expected a value <= {OUTPUT_LIMIT_TOKENS_MAX}."
        raise errors.parameter_invalid(name, message, "integer_above_max_value")
    return value


def _effort_is_none(fields: _Text) -> bool:
    return fields.reasoning_effort == "none" or b'"none"' in bytes(fields.reasoning)


def _echoed(fields: _Text) -> dict[str, Any]:
    return {
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "metadata": _given(fields.metadata, {}),
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "previous_response_id": fields.previous_response_id,
        "temperature": 1.0 if fields.temperature is None else fields.temperature,
        "text": _given(fields.text, {"format": {"type": "text"}}),
        "tool_choice": _given(fields.tool_choice, "auto"),
        "tools": _given(fields.tools, []),
        "top_p": 1.0 if fields.top_p is None else fields.top_p,
    }


def _given(raw: msgspec.Raw, usual: Any) -> Any:
    return usual if bytes(raw) in (b"", b"null") else raw
