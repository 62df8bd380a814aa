"""What the gateway itself refuses, each error with the HTTP status it means.

The docstring of a class is its default message. A message never holds a host name, a key or another account's data.
"""

from typing import ClassVar

import msgspec


class GatewayError(Exception):
    """The gateway could not serve this request."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "gateway_error"
    type: ClassVar[str] = "api_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        **details: str | int,
    ) -> None:
        self.message = message or (self.__doc__ or "").strip().split("\n")[0]
        self.param = param
        self.retry_after_s = retry_after_s
        self.details = details
        super().__init__(self.message)

    def body(self) -> bytes:
        """The OpenAI error shape, with what the caller can act on (`needed`, `available` …) beside the message."""
        error: dict[str, str | int | None] = {
            "message": self.message,
            "type": self.type,
            "code": self.code,
            "param": self.param,
        }
        return msgspec.json.encode({"error": error | self.details})

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers an error adds: when to come back, or that no retry can mend it."""
        headers = [] if self.retryable else [(b"x-should-retry", b"false")]
        if self.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after_s))
        return headers


class InvalidRequest(GatewayError):
    """The request is not one the gateway can read."""

    status, code, type = 400, "invalid_request", "invalid_request_error"


class ModelNotFound(GatewayError):
    """The model does not exist here or has no price."""

    status, code, type = 404, "model_not_found", "invalid_request_error"


class NotFound(GatewayError):
    """There is no such path here: a base_url ends with /v1, and GET /api/openapi.json describes the rest."""

    status, code, type = 404, "not_found", "invalid_request_error"


class MethodNotAllowed(GatewayError):
    """This path does not take that method."""

    status, code, type = 405, "method_not_allowed", "invalid_request_error"


class EndpointNotAllowed(GatewayError):
    """Not offered here: chat/completions, completions, responses, embeddings, models and moderations are."""

    status, code, type = 403, "endpoint_not_allowed", "permission_error"


class FeatureNotAllowed(GatewayError):
    """The call uses a feature that this gateway cannot meter, so it does not offer it."""

    status, code, type = 403, "feature_not_allowed", "permission_error"


class Unauthenticated(GatewayError):
    """Incorrect API key provided. Pass a valid key as 'Authorization: Bearer sk-tg-…'."""

    status, code, type = 401, "invalid_api_key", "invalid_request_error"


class ScopeMissing(GatewayError):
    """This API key lacks the scope that the request needs."""

    status, code, type = 403, "scope_missing", "permission_error"


class RoleNotAllowed(GatewayError):
    """The role of this caller does not allow this."""

    status, code, type = 403, "role_not_allowed", "permission_error"


class IdempotencyMismatch(GatewayError):
    """This Idempotency-Key was used with another request."""

    status, code, type = 409, "idempotency_mismatch", "invalid_request_error"


class ModelNotAllowed(GatewayError):
    """This API key may not use this model."""

    status, code, type = 403, "model_not_allowed", "permission_error"


class AddressNotAllowed(GatewayError):
    """This API key may not be used from this address."""

    status, code, type = 403, "address_not_allowed", "permission_error"


class AccountSuspended(GatewayError):
    """This account or member is suspended; its operator can tell more."""

    status, code, type = 403, "account_suspended", "permission_error"


class AccountInReview(GatewayError):
    """This account, member or key is under review; its operator can tell more."""

    status, code, type = 403, "account_in_review", "permission_error"


class InsufficientCredits(GatewayError):
    """The account does not hold enough credits for this call."""

    status, code, type = 402, "insufficient_credits", "insufficient_quota"  # not 429: SDKs retry that


class CapReached(GatewayError):
    """A cap on credits is reached."""

    status, code, type = 402, "cap_reached", "insufficient_quota"  # not 429: SDKs retry that


class OutputLimitTooHigh(GatewayError):
    """The call asks for more output than it may have."""

    status, code, type = 400, "output_limit_too_high", "invalid_request_error"


class BeyondRateLimit(GatewayError):
    """This call alone is more than a minute allows."""

    status, code, type = 429, "rate_limit_exceeded", "rate_limit_error"

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Likewise, and of a rate what an admitted call is told of it too."""
        kind, allowed, left = (self.details.get(name) for name in ("rate", "allowed", "remaining"))
        if not isinstance(allowed, int) or not isinstance(left, int):
            return super().headers()
        told = {
            "limit": f"{allowed}",
            "remaining": f"{left}",
            "reset": f"{(allowed - left) * 60_000 // (allowed or 1)}ms",
        }
        lines = [(f"x-gateway-ratelimit-{what}-{kind}".encode(), value.encode()) for what, value in told.items()]
        return super().headers() + lines


class RateLimited(BeyondRateLimit):
    """Too many calls at once or in a minute."""

    retryable = True


class RequestTimeout(GatewayError):
    """The request did not arrive in time."""

    status, code, type = 408, "request_timeout", "invalid_request_error"


class BodyTooLarge(GatewayError):
    """The request body is larger than this gateway accepts."""

    status, code, type = 413, "request_too_large", "invalid_request_error"


class HeadersTooLarge(GatewayError):
    """The request headers are larger than this gateway accepts."""

    status, code, type = 431, "headers_too_large", "invalid_request_error"


class UpstreamUnreachable(GatewayError):
    """The model provider could not be reached; nothing was charged."""

    status, code, retryable = 502, "upstream_unreachable", True


class UpstreamTimeout(GatewayError):
    """The model provider did not answer in time."""

    status, code, retryable = 504, "upstream_timeout", True


class UpstreamBroken(GatewayError):
    """The model provider broke off its answer."""

    status, code, retryable = 502, "upstream_broken", True


class UpstreamRejected(GatewayError):
    """The model provider refused this gateway's own credentials; its operator has been told."""

    status, code = 502, "upstream_rejected"


class IdentityUnavailable(GatewayError):
    """The identity provider cannot be reached, so tokens cannot be checked; API keys still work."""

    status, code, retryable = 503, "identity_unavailable", True


class BillingUnavailable(GatewayError):
    """Credits cannot be checked right now; nothing was charged."""

    status, code, retryable = 503, "billing_unavailable", True


class ModelUnavailable(GatewayError):
    """The model provider fails for this model right now; nothing was charged."""

    status, code, retryable = 503, "model_unavailable", True


class ModelBrownedOut(GatewayError):
    """This model is reduced for now; nothing was charged."""

    status, code, retryable = 503, "model_browned_out", True


class Maintenance(GatewayError):
    """This gateway is down for maintenance."""

    status, code, retryable = 503, "maintenance", True


class EndpointOff(GatewayError):
    """This endpoint is switched off for now."""

    status, code, retryable = 503, "endpoint_off", True


class PurchasesClosed(GatewayError):
    """Credits cannot be bought right now."""

    status, code, retryable = 503, "purchases_closed", True


class Overloaded(GatewayError):
    """This gateway holds as many large requests as it can; try again in a moment."""

    status, code, retryable = 503, "overloaded", True


class ShuttingDown(GatewayError):
    """This gateway is stopping; another one will take the request."""

    status, code, retryable = 503, "shutting_down", True
