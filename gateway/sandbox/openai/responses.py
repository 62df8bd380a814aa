"""Responses: the plain body, and the stream of named events, each with its sequence number."""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.sandbox.openai.completions import Event, padding
from gateway.sandbox.openai.plans import Plan
from gateway.sandbox.openai.tokens import WORDS, pieces, text_of


def response_body(plan: Plan) -> bytes:
    """The unstreamed answer."""
    return _response(plan, "incomplete" if plan.limited else "completed")


def _response(plan: Plan, status: str) -> bytes:
    """The response object: empty while it is in progress, with output and usage at its end."""
    ended = status != "in_progress"
    answer: dict[str, Any] = {
        "id": f"resp_{plan.answer_id}",
        "object": "response",
        "created_at": plan.created_s,
        "status": status,
        "background": False,
        "completed_at": plan.created_s if status == "completed" else None,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": msgspec.Raw(plan.model),
        "output": _output(plan) if ended else [],
        "reasoning": {"effort": "medium" if plan.ask.reasons else None, "summary": None},
        "service_tier": plan.tier if ended else "auto",
        "store": True,
        "truncation": "disabled",
        "user": None,
    }
    answer |= plan.ask.echoed
    if plan.usage is not None:
        answer["usage"] = msgspec.Raw(plan.usage) if ended else None
    return msgspec.json.encode(answer)


def _output(plan: Plan) -> list[dict[str, Any]]:
    output = [_reasoning_item(plan)] if plan.reasoning else []
    if plan.visible or not plan.limited:
        output.append(_message_item(plan, text_of(plan.offset, plan.visible)))
    return output


def _reasoning_item(plan: Plan) -> dict[str, Any]:
    return {"id": f"rs_{plan.answer_id}", "type": "reasoning", "summary": []}


def _message_item(plan: Plan, text: str | None) -> dict[str, Any]:
    """The message, finished with `text`, or just begun (None)."""
    ended = "incomplete" if plan.limited else "completed"
    return {
        "id": f"msg_{plan.answer_id}",
        "type": "message",
        "status": "in_progress" if text is None else ended,
        "content": [] if text is None else [_part(text)],
        "role": "assistant",
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


class _Numbered:
    """Numbers the events of one stream."""

    def __init__(self) -> None:
        self.sequence = 0

    def event(self, name: str, *, usage: bool = False, **fields: Any) -> Event:
        body = msgspec.json.encode({"type": name, "sequence_number": self.sequence, **fields})
        self.sequence += 1
        return Event(b"event: %b\ndata: %b\n\n" % (name.encode(), body), usage=usage)


def response_events(plan: Plan) -> Iterator[Event]:
    """The streamed answer: created, in progress, its items one after the other, and completed or incomplete."""
    numbered = _Numbered()
    begun = msgspec.Raw(_response(plan, "in_progress"))
    yield numbered.event("response.created", response=begun)
    yield numbered.event("response.in_progress", response=begun)
    index = 0
    if plan.reasoning:
        item = _reasoning_item(plan)
        yield numbered.event("response.output_item.added", output_index=index, item=item)
        yield numbered.event("response.output_item.done", output_index=index, item=item)
        index += 1
    if plan.visible or not plan.limited:
        yield from _message_events(plan, numbered, index)
    status = "incomplete" if plan.limited else "completed"
    reported = plan.usage is not None
    yield numbered.event(f"response.{status}", usage=reported, response=msgspec.Raw(_response(plan, status)))


def _message_events(plan: Plan, numbered: _Numbered, index: int) -> Iterator[Event]:
    yield numbered.event("response.output_item.added", output_index=index, item=_message_item(plan, None))
    where: dict[str, Any] = {"item_id": f"msg_{plan.answer_id}", "output_index": index, "content_index": 0}
    yield numbered.event("response.content_part.added", **where, part=_part(""))
    yield from _word_events(plan, numbered, index)
    text = text_of(plan.offset, plan.visible)
    yield numbered.event("response.output_text.done", **where, text=text, logprobs=[])
    yield numbered.event("response.content_part.done", **where, part=_part(text))
    yield numbered.event("response.output_item.done", output_index=index, item=_message_item(plan, text))


def _word_events(plan: Plan, numbered: _Numbered, index: int) -> Iterator[Event]:
    """The deltas, put together by hand: they are most of a stream."""
    head = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":'
    middle = b',"item_id":"msg_%b","output_index":%d,"content_index":0,"delta":"' % (plan.answer_id.encode(), index)
    words = pieces(plan.offset)
    for position in range(plan.visible):
        word = words[position % len(WORDS)] if position else words[0][1:]
        end = b'","logprobs":[]}\n\n'
        if plan.ask.obfuscate:
            end = b'","logprobs":[],"obfuscation":"' + padding(word) + b'"}\n\n'
        yield Event(head + b"%d" % numbered.sequence + middle + word.encode() + end, 1)
        numbered.sequence += 1
