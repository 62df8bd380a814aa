"""Embeddings: reading such a call, and vectors that depend on nothing but the input and the dimensions."""

from array import array
from base64 import b64encode
from functools import lru_cache
from math import sqrt
from random import Random
from typing import Any
from zlib import crc32

import msgspec

from gateway.sandbox.openai import errors
from gateway.sandbox.openai.asks import decode, known_model
from gateway.sandbox.openai.tokens import TokenCounts, count_prompt

INPUTS_MAX = 2048


class _Body(msgspec.Struct):
    model: str | None = None
    input: Any = None
    encoding_format: str | None = None
    dimensions: int | None = None


class EmbeddingsAsk(msgspec.Struct, frozen=True):
    """A call of embeddings: one text, many, one list of token ids, or many."""

    model: str
    inputs: list[bytes]  # each as JSON
    tokens: int
    dimensions: int
    as_base64: bool


_body = msgspec.json.Decoder(_Body)


def read_embeddings_ask(body: bytes) -> EmbeddingsAsk:
    fields = decode(_body, body)
    model = known_model(fields.model)
    native = 3072 if model.startswith("text-embedding-3-large") else 1536
    dimensions = native if fields.dimensions is None else fields.dimensions
    if not 1 <= dimensions <= native:
        message = f"Invalid value for 'dimensions' = {dimensions}. Must be between 1 and {native}."
        raise errors.parameter_invalid("dimensions", message, "invalid_value")
    if fields.encoding_format not in (None, "float", "base64"):
        message = f"Invalid value: '{fields.encoding_format}'. Supported values are: 'float' and 'base64'."
        raise errors.parameter_invalid("encoding_format", message, "invalid_value")
    inputs = [msgspec.json.encode(one) for one in _inputs(fields.input)]
    return EmbeddingsAsk(model, inputs, count_prompt(inputs), dimensions, fields.encoding_format == "base64")


def _inputs(given: Any) -> list[Any]:
    """The inputs as a list, each a non-empty text or list of token ids."""
    if given is None:
        raise errors.parameter_missing("input")
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list) or not 1 <= len(given) <= INPUTS_MAX:
        message = f"'$.input' is invalid: expected a string or an array of 1 to {INPUTS_MAX} items."
        raise errors.parameter_invalid("input", message, "invalid_value")
    if all(type(one) is int for one in given):
        return [given]
    if not (all(isinstance(one, str) for one in given) or all(map(_is_token_ids, given))):
        raise errors.parameter_invalid("input", "'$.input' is invalid: mixed or unknown item types.", "invalid_type")
    if not all(given):
        raise errors.parameter_invalid("input", "'$.input' is invalid: an input cannot be empty.", "invalid_value")
    return given


def _is_token_ids(one: Any) -> bool:
    return isinstance(one, list) and all(type(token) is int for token in one)


def embeddings_body(ask: EmbeddingsAsk, model: str, usage: bytes | None) -> bytes:
    """The answer to `ask`; `usage` is raw JSON, or None to leave it out."""
    vector = _vector_base64 if ask.as_base64 else _vector_floats
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, vector(ask.dimensions, crc32(one)))
        for index, one in enumerate(ask.inputs)
    )
    reported = b"" if usage is None else b',"usage":%b' % usage
    return b'{"object":"list","data":[%b],"model":%b%b}' % (data, msgspec.json.encode(model), reported)


def embeddings_counts(ask: EmbeddingsAsk) -> TokenCounts:
    return TokenCounts(prompt=ask.tokens)


# A vector is one unit vector of its dimension, rotated by a number that the input gives: cheap, and of length one.


def _vector_floats(dimensions: int, seed: int) -> bytes:
    start = seed % dimensions
    return b"[%b]" % b",".join(_unit_vector_json(dimensions)[start : start + dimensions])


def _vector_base64(dimensions: int, seed: int) -> bytes:
    start = seed % dimensions
    return b'"%b"' % b64encode(_unit_vector(dimensions)[start : start + dimensions].tobytes())


@lru_cache(maxsize=8)
def _unit_vector(dimensions: int) -> "array[float]":
    """A fixed unit vector of float32, twice in a row, so that a slice of it is a rotation."""
    random = Random(dimensions)
    drawn = [random.uniform(-1.0, 1.0) for _ in range(dimensions)]
    length = sqrt(sum(value * value for value in drawn))
    return array("f", [value / length for value in drawn] * 2)


@lru_cache(maxsize=8)
def _unit_vector_json(dimensions: int) -> list[bytes]:
    return [b"%r" % value for value in _unit_vector(dimensions)]
