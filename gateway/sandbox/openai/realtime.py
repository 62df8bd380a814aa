"""The Realtime API over a WebSocket, in text: items are taken, and each response says what it used.

Source of the events: RealtimeServerEvent and RealtimeClientEvent of OpenAI's published OpenAPI document.
"""

from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from gateway.sandbox.openai import errors
from gateway.sandbox.openai.log import LogEntry
from gateway.sandbox.openai.tokens import TokenCounts, count_prompt, pieces, seed_of, text_of

REALTIME = "/v1/realtime"
SUBPROTOCOL = "realtime"
MESSAGE_BYTES_MAX = 16 * 1024 * 1024


async def converse(request: web.Request, entry: LogEntry, output_tokens: int) -> web.WebSocketResponse:
    """Hold one session to its end; raises `ApiError` for what is no handshake."""
    entry.model = entry.served_model = request.query.get("model", "")
    if not entry.model:
        raise errors.model_missing()
    socket = web.WebSocketResponse(protocols=(SUBPROTOCOL,), max_msg_size=MESSAGE_BYTES_MAX)
    if not socket.can_prepare(request).ok:
        raise errors.by_status(400)
    socket.headers["x-request-id"] = entry.request_id
    await socket.prepare(request)
    entry.status, entry.stream = 101, True
    conversation = Conversation(entry, output_tokens)
    await socket.send_str(conversation.event("session.created", session=conversation.session))
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            break
        for event in conversation.answer(message.data.encode()):
            entry.answer_bytes += len(event)
            entry.events += 1
            await socket.send_str(event)
    return socket


class _ClientEvent(msgspec.Struct):
    type: str = ""
    item: msgspec.Raw = msgspec.Raw(b"null")
    session: dict[str, Any] = {}


class Conversation:
    """What one session has said so far. Every response reads all of it again."""

    def __init__(self, entry: LogEntry, output_tokens: int) -> None:
        self._entry = entry
        self._output_tokens = output_tokens
        self._items: list[bytes] = []
        self._events = self._responses = 0
        self.session: dict[str, Any] = {
            "object": "realtime.session",
            "type": "realtime",
            "id": f"sess_{entry.request_id[4:]}",
            "model": entry.model,
            "output_modalities": ["text"],
        }

    def event(self, kind: str, **fields: Any) -> str:
        self._events += 1
        return msgspec.json.encode({"type": kind, "event_id": f"event_{self._events}", **fields}).decode()

    def answer(self, message: bytes) -> list[str]:
        """The events that one message of the client's is answered with."""
        try:
            asked = msgspec.json.decode(message, type=_ClientEvent)
        except msgspec.DecodeError:
            return [self._error("We could not parse the JSON of your event.")]
        match asked.type:
            case "session.update":
                self.session |= asked.session
                return [self.event("session.updated", session=self.session)]
            case "conversation.item.create":
                self._items.append(bytes(asked.item))
                item = {"id": f"item_{len(self._items)}", "object": "realtime.item", "status": "completed"}
                item |= msgspec.json.decode(asked.item)
                return [self.event("conversation.item.added", item=item, previous_item_id=None)]
            case "response.create":
                return self._respond()
        return [self._error(f"Invalid value: '{asked.type}'.")]

    def _respond(self) -> list[str]:
        self._responses += 1
        response_id = f"resp_{self._entry.request_id[4:]}_{self._responses}"
        offset = seed_of(self._entry.model, self._items)
        counts = TokenCounts(prompt=count_prompt(self._items), completion=self._output_tokens)
        self._add(counts)
        about = {"response_id": response_id, "item_id": f"{response_id}_item", "output_index": 0, "content_index": 0}
        words = (pieces(offset) * (self._output_tokens // len(pieces(offset)) + 1))[: self._output_tokens]
        response = {"id": response_id, "object": "realtime.response", "output": []}
        created = self.event("response.created", response=response | {"status": "in_progress", "usage": None})
        text = text_of(offset, self._output_tokens)
        return [
            created,
            *(self.event("response.output_text.delta", delta=word, **about) for word in words),
            self.event("response.output_text.done", text=text, **about),
            self.event("response.done", response=response | {"status": "completed", "usage": _reported(counts)}),
        ]

    def _add(self, counts: TokenCounts) -> None:
        so_far = self._entry.usage
        self._entry.usage = TokenCounts(
            prompt=so_far.prompt + counts.prompt, completion=so_far.completion + counts.completion
        )
        self._entry.usage_reported = True

    def _error(self, message: str) -> str:
        return self.event("error", error={"type": "invalid_request_error", "message": message})


def _reported(counts: TokenCounts) -> dict[str, Any]:
    return {
        "total_tokens": counts.prompt + counts.completion,
        "input_tokens": counts.prompt,
        "output_tokens": counts.completion,
        "input_token_details": {
            "text_tokens": counts.prompt,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": 0,
            "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": counts.completion, "audio_tokens": 0},
    }
