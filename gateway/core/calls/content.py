"""What a body holds beyond its own text: images, audio, references to what only the upstream can see.

It answers for money, so it is written against a hostile body: types are an allow-list, JSON escapes and repeated keys
hide nothing, and what it does not recognise is `opaque`, which the estimate holds the whole context window for.
"""

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.core.calls.calls import Call, Endpoint

# A body with more brackets and commas than this is not taken apart on the event loop (about 20 ms): it is opaque.
STRUCTURE_MAX = 50_000

# One audio token is a tenth of a second. The least an MP3 frame of 72 ms can hold is 13 bytes, and telephone-grade PCM
# is 8,000 bytes a second, so a token is never fewer than 16 base64 characters of either.
AUDIO_CHARACTERS_PER_TOKEN = 16

# Parts and items whose every token stands in the body as text.
_TEXT_TYPES = frozenset(
    {
        "text",
        "input_text",
        "output_text",
        "summary_text",
        "reasoning_text",
        "refusal",
        "message",
        "function",
        "function_call",
        "function_call_output",
        "custom",
        "custom_tool_call",
        "custom_tool_call_output",
        "compaction",  # ciphertext, longer than what it hides
    }
)
_IMAGE_TYPES = frozenset({"image_url", "input_image"})
_AUDIO_TYPES = frozenset({"input_audio"})
_MEDIA_TYPES = _IMAGE_TYPES | _AUDIO_TYPES
# A reasoning item carries its text as ciphertext, or else refers by its id to what the upstream has stored.
_REASONING = "reasoning"
_TEXTLESS_KEYS = frozenset({"file_id", "file_url", "file_data", "image_url", "input_audio"})

_INPUT_KEYS = frozenset({"messages", "input", "prompt", "suffix", "instructions"})


class Content(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a body holds. Sizes bound from above what the upstream can count."""

    opaque: bool = False  # there is input that the body does not show
    images: int = 0
    audio_tokens: int = 0
    media_bytes: int = 0  # base64 of images and audio: bytes of the body that are no text
    prediction_bytes: int = 0  # predicted output; what the model rejects of it is billed as output
    texts: tuple[str, ...] = ()  # every string of the input that is no media
    objects: int = 0  # JSON objects in the input: messages, parts, items
    scalars: int = 0  # numbers and the like: the tokens of a token array


TEXT_ONLY = Content()


class _Object(list[tuple[str, Any]]):
    """A JSON object as pairs, so that a repeated key hides nothing."""


def glance(call: Call) -> Content:
    """Return what `call` holds beyond text; a body without a hint of parts, the usual one, is not taken apart.

    Completions and embeddings have no parts, only text and token arrays.
    """
    if call.endpoint in (Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS):
        return TEXT_ONLY
    return read(call) if call.may_hold_parts else TEXT_ONLY


def read(call: Call) -> Content:
    """Return what `call` holds, with its texts; `opaque` alone if the body is too intricate to be taken apart."""
    body = call.body
    if body.count(b"{") + body.count(b"[") + body.count(b",") > STRUCTURE_MAX:
        return _unread(body)
    try:
        top = json.loads(body, object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        return _unread(body)
    reader = _Reader()
    for key, value in top if isinstance(top, _Object) else ():
        if key in _INPUT_KEYS:
            reader.walk(value, of_input=True)
        elif key == "prediction":
            reader.walk(value, of_input=False)
    return reader.content()


def _unread(body: bytes) -> Content:
    may_predict = b'"prediction"' in body or b"\\u00" in body  # or spelt so
    return Content(opaque=True, prediction_bytes=len(body) if may_predict else 0)


class _Reader:
    """Sums up the values it walks, without recursion: depth is the attacker's choice."""

    def __init__(self) -> None:
        self._opaque = False
        self._images = self._audio_tokens = self._media_bytes = self._prediction_bytes = 0
        self._objects = self._scalars = 0
        self._texts: list[str] = []

    def content(self) -> Content:
        return Content(
            opaque=self._opaque,
            images=self._images,
            audio_tokens=self._audio_tokens,
            media_bytes=self._media_bytes,
            prediction_bytes=self._prediction_bytes,
            texts=tuple(self._texts),
            objects=self._objects,
            scalars=self._scalars,
        )

    def walk(self, value: Any, *, of_input: bool) -> None:
        todo = [value]
        while todo:
            value = todo.pop()
            if isinstance(value, _Object):
                todo.extend(self._object(value) if of_input else (member for _, member in value))
            elif isinstance(value, list):
                todo.extend(value)
            elif isinstance(value, str):
                if of_input:
                    self._texts.append(value)
                else:
                    self._prediction_bytes += len(value.encode("utf-8", "surrogatepass"))
            elif value is not None:
                self._scalars += 1

    def _object(self, members: _Object) -> Iterator[Any]:
        """Count one object; yield the members that may hold text."""
        self._objects += 1
        keys = [key for key, value in members if value is not None]
        kinds = [value for key, value in members if key == "type" and value is not None]
        if not kinds:
            # a part that does not say what it is, or a reference to something stored
            self._opaque |= not _TEXTLESS_KEYS.isdisjoint(keys) or ("id" in keys and "content" not in keys)
        elif len(kinds) > 1 or not isinstance(kinds[0], str):
            self._opaque = True  # what the upstream makes of it cannot be known
        else:
            self._count_kind(kinds[0], keys)
        is_media = bool(kinds) and isinstance(kinds[0], str) and kinds[0] in _MEDIA_TYPES
        for key, value in members:
            if is_media and key in ("image_url", "input_audio"):
                self._media(key, value)
            elif key != "type":
                yield value

    def _count_kind(self, kind: str, keys: list[str]) -> None:
        if kind in _IMAGE_TYPES:
            self._images += max(1, keys.count("image_url"))
        elif kind in _AUDIO_TYPES:
            self._opaque |= "input_audio" not in keys
        elif kind == _REASONING:
            self._opaque |= "encrypted_content" not in keys
        elif kind not in _TEXT_TYPES:
            self._opaque = True

    def _media(self, key: str, value: Any) -> None:
        """Count the data of an image (its URL, plain or in an object) or of an audio clip."""
        for name, data in value if isinstance(value, _Object) else [("url", value)]:
            if key == "image_url" and name == "url" and isinstance(data, str) and data.startswith("data:"):
                self._media_bytes += len(data)
            elif key == "input_audio" and name == "data" and isinstance(data, str):
                tokens = audio_tokens(data)
                self._opaque |= tokens is None
                self._audio_tokens += tokens or 0
                self._media_bytes += len(data)
        self._opaque |= key == "input_audio" and not isinstance(value, _Object)


def audio_tokens(data: str) -> int | None:
    """Return the most tokens that base64 audio can count for, or None where the format allows no bound.

    Known: MP3, and WAV whose first chunk says plain PCM of at least 8,000 samples a second.
    """
    try:
        head = base64.b64decode(data[:64].encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None
    is_mp3 = head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)
    is_wav = (
        head[:4] == b"RIFF"
        and head[8:16] == b"WAVEfmt "
        and int.from_bytes(head[20:22], "little") == 1
        and int.from_bytes(head[24:28], "little") >= 8_000
    )
    if not is_mp3 and not is_wav:
        return None
    return len(data) // AUDIO_CHARACTERS_PER_TOKEN + 1
