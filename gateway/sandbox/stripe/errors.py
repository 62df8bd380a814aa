"""What the simulated Stripe answers when it refuses, in Stripe's shape, so that the SDK raises the class it should."""

from typing import Any


class StripeError(Exception):
    """A refusal: its HTTP status and the members of Stripe's `error` object."""

    def __init__(self, status: int, kind: str, message: str, **members: Any) -> None:
        super().__init__(message)
        self.status = status
        self.members = {"type": kind, "message": message} | {k: v for k, v in members.items() if v is not None}

    def body(self) -> dict[str, Any]:
        members = dict(self.members)
        if code := members.get("code"):
            members["doc_url"] = f"https://docs.stripe.com/error-codes/{code.replace('_', '-')}"
        return {"error": members}


def invalid(message: str, *, code: str | None = None, param: str | None = None, **members: Any) -> StripeError:
    """What the request itself got wrong."""
    return StripeError(400, "invalid_request_error", message, code=code, param=param, **members)


def no_such(kind: str, object_id: str, param: str | None = None) -> StripeError:
    """The object does not exist: 404 if the path names it, 400 if a parameter does."""
    status = 400 if param else 404
    message = f"No such {kind}: '{object_id}'"
    return StripeError(status, "invalid_request_error", message, code="resource_missing", param=param or "id")


def declined(message: str, *, code: str, decline_code: str | None, **members: Any) -> StripeError:
    """The card or bank said no."""
    return StripeError(402, "card_error", message, code=code, decline_code=decline_code, **members)
