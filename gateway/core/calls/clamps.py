"""Clamps: writes into a call's body what it may be, by the least change, so that upstream keeps to what is allowed."""

import re

import msgspec

from gateway.core.calls.calls import Call, Endpoint
from gateway.core.errors import OutputLimitTooHigh
from gateway.core.guard.caps import Bounds, Excess
from gateway.core.pricing.rates import ModelRates

# What a body is given that names no limit. The newer name of chat is the one that every model takes.
_ADDED: dict[Endpoint, bytes] = {
    Endpoint.CHAT: b'"max_completion_tokens":%d,',
    Endpoint.COMPLETIONS: b'"max_tokens":%d,',
    Endpoint.RESPONSES: b'"max_output_tokens":%d,',
}
_NAMES: dict[Endpoint, tuple[str, ...]] = {
    Endpoint.CHAT: ("max_tokens", "max_completion_tokens"),
    Endpoint.COMPLETIONS: ("max_tokens",),
    Endpoint.RESPONSES: ("max_output_tokens",),
    Endpoint.EMBEDDINGS: (),
}
_LIMIT = re.compile(rb'"(?:max_tokens|max_completion_tokens|max_output_tokens)"\s*+:\s*+(\d++)')

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def keep_output(call: Call, row: ModelRates, bounds: Bounds) -> Call:
    """`call` within its cap on output; raises `OutputLimitTooHigh` where that is not to be clamped, or cannot be."""
    cap = bounds.output_tokens
    asked = row.output_tokens_max if call.output_limit_upstream is None else call.output_limit_upstream
    if cap is None or asked * call.choices <= cap:
        return call
    limit = cap // call.choices
    if limit < 1 or (call.output_limit is not None and bounds.on_output is Excess.REFUSE):
        raise OutputLimitTooHigh(
            f"This call asks for up to {call.choices * asked} output tokens; {cap} are allowed in one call.",
            param=_NAMES[call.endpoint][-1],
            allowed=cap,
        )
    return with_output_limit(call, limit)


def with_output_limit(call: Call, limit: int) -> Call:
    """`call` with at most `limit` output tokens for each of its choices; itself, if it asks for no more.

    >>> from gateway.core.calls.calls import parse
    >>> with_output_limit(parse(Endpoint.CHAT, b'{"model":"m", "max_tokens": 500}'), 100).body
    b'{"model":"m", "max_tokens": 100}'
    """
    if call.output_limit_upstream is not None and call.output_limit_upstream <= limit:
        return call
    if call.output_limit is None:
        added = _ADDED.get(call.endpoint)
        if added is None:
            return call
        body = _added(call.body, added % limit)
    else:
        body = _lowered(call, limit)
    return msgspec.structs.replace(call, body=body, output_limit=limit)


def with_model(call: Call, model: str) -> Call:
    """`call` made to another model."""
    return msgspec.structs.replace(call, model=model, body=_with_text(call.body, "model", model))


def with_service_tier(call: Call, tier: str) -> Call:
    """`call` in that service tier."""
    return msgspec.structs.replace(call, service_tier=tier, body=_with_text(call.body, "service_tier", tier))


def _with_text(body: bytes, name: str, value: str) -> bytes:
    fields = _decode_fields(body)
    fields[name] = msgspec.Raw(msgspec.json.encode(value))
    return msgspec.json.encode(fields)


def _added(body: bytes, field: bytes) -> bytes:
    """`field` first in the object: a limit that is null further on is taken out, since the last of two would count."""
    name = field[: field.index(b":")]
    if name not in body and b"\\u00" not in body:
        start = body.index(b"{") + 1
        return body[:start] + field + body[start:]
    fields = _decode_fields(body)
    key, value = msgspec.json.decode(b"{%b}" % field[:-1]).popitem()
    fields[key] = msgspec.Raw(b"%d" % value)
    return msgspec.json.encode(fields)


def _lowered(call: Call, limit: int) -> bytes:
    found = list(_LIMIT.finditer(call.body))
    # The only one there is must be the one that was read, unless a name is spelt with escapes.
    if len(found) == 1 and b"\\u00" not in call.body:
        start, end = found[0].span(1)
        return b"%b%d%b" % (call.body[:start], limit, call.body[end:])
    fields = _decode_fields(call.body)
    for name in _NAMES[call.endpoint]:
        if name in fields and bytes(fields[name]) != b"null":
            fields[name] = msgspec.Raw(b"%d" % min(limit, int(bytes(fields[name]))))
    return msgspec.json.encode(fields)
