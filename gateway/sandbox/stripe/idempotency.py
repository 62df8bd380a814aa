"""Idempotency keys: the first answer under a key is the only one, for 24 hours.

A key with other parameters is an error, one whose first request still runs is a conflict. What was refused before it
ran (a missing parameter, a wrong key) is not kept, so it may be tried again.
"""

from collections import OrderedDict
from typing import Final

import msgspec

from gateway.sandbox.stripe.errors import StripeError

_KEPT_S: Final = 86_400
_LENGTH_MAX: Final = 255


class Answer(msgspec.Struct, frozen=True):
    """What was answered under a key, and to which request."""

    status: int
    body: bytes
    request_id: str


class _Entry(msgspec.Struct):
    fingerprint: str
    begun_s: float
    answer: Answer | None = None


class IdempotencyKeys:
    """Keys, each in the scope of an API key; at most `keys_max`, the oldest are forgotten."""

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    def begin(self, scope: str, key: str, fingerprint: str, now_s: float) -> Answer | None:
        """The answer to repeat, or None if the request is to run; `finish` or `abandon` must follow then."""
        if len(key) > _LENGTH_MAX:
            raise _refusal(400, f"Idempotency keys must be at most {_LENGTH_MAX} characters long.")
        self._forget(now_s)
        entry = self._entries.get((scope, key))
        if entry is None:
            self._entries[scope, key] = _Entry(fingerprint, now_s)
            return None
        if entry.fingerprint != fingerprint:
            raise _refusal(
                400,
                "Keys for idempotent requests can only be used with the same parameters they were first used with. Try "
                f"using a key other than '{key}' if you meant to execute a different request.",
            )
        if entry.answer is None:
            raise _refusal(
                409,
                "There is currently another in-progress request using this Idempotent Key (that probably means you "
                f"submitted twice, and the other request is still going through): {key}.",
                code="idempotency_key_in_use",
            )
        return entry.answer

    def finish(self, scope: str, key: str, answer: Answer) -> None:
        if (scope, key) in self._entries:  # a long request may outlive its key
            self._entries[scope, key].answer = answer

    def abandon(self, scope: str, key: str) -> None:
        """The request did not run after all."""
        self._entries.pop((scope, key), None)

    def _forget(self, now_s: float) -> None:
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if oldest.begun_s + _KEPT_S > now_s and len(self._entries) < self._keys_max:
                return
            self._entries.popitem(last=False)


def _refusal(status: int, message: str, code: str | None = None) -> StripeError:
    return StripeError(status, "idempotency_error", message, code=code)
