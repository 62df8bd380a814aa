"""What costs nothing: the list of models, and moderations, which never flag anything."""

from typing import Any

import msgspec

from gateway.sandbox.openai import errors
from gateway.sandbox.openai.asks import UNKNOWN_MODEL_SUFFIX, decode, known_model

LISTED = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-5",
    "gpt-5-mini",
    "gpt-5.6",
    "o3",
    "o4-mini",
    "gpt-4o-audio-preview",
    "gpt-3.5-turbo-instruct",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "omni-moderation-latest",
)
_CREATED_S = 1_715_367_049
_TEXT_ONLY = ("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent")
_TEXT_AND_IMAGE = ("self-harm", "self-harm/intent", "self-harm/instructions", "sexual", "violence", "violence/graphic")
_CATEGORIES = (*_TEXT_ONLY, "sexual/minors", *_TEXT_AND_IMAGE)
_UNFLAGGED = msgspec.json.encode(
    {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0001),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
)


class _Moderations(msgspec.Struct):
    model: str | None = None
    input: Any = None


class ModerationsAsk(msgspec.Struct, frozen=True):
    """A call of moderations: a text, many texts, or many parts of one input."""

    model: str
    inputs: int


_moderations = msgspec.json.Decoder(_Moderations)


def read_moderations_ask(body: bytes) -> ModerationsAsk:
    fields = decode(_moderations, body)
    if fields.input is None:
        raise errors.parameter_missing("input")
    many = isinstance(fields.input, list) and fields.input and isinstance(fields.input[0], str)
    return ModerationsAsk(known_model(fields.model or "omni-moderation-latest"), len(fields.input) if many else 1)


def moderations_body(ask: ModerationsAsk, model: str, answer_id: str) -> bytes:
    results = b",".join([_UNFLAGGED] * ask.inputs)
    return b'{"id":"modr-%b","model":%b,"results":[%b]}' % (answer_id.encode(), msgspec.json.encode(model), results)


def models_body() -> bytes:
    return msgspec.json.encode({"object": "list", "data": [_model(name) for name in LISTED]})


def model_body(name: str) -> bytes:
    """One model; raises the 404 of a name that is not served."""
    if name.endswith(UNKNOWN_MODEL_SUFFIX):
        message = f"The model '{name}' does not exist"
        raise errors.ApiError(404, message, param="model", code="model_not_found")
    return msgspec.json.encode(_model(name))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED_S, "owned_by": "system"}
