"""OpenAI's error answers, as the real API words them: status, type, code and param of each.

Source of the shape: ErrorResponse of OpenAI's published OpenAPI document; the wordings are those its API sends.
"""

import msgspec


class ApiError(Exception):
    """The simulated OpenAI refuses this request."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str = "invalid_request_error",
    ) -> None:
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.type = type
        super().__init__(message)

    def body(self) -> bytes:
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


# What `status=N` answers: type, code and message. A status that is not here is answered as a server error.
_BY_STATUS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", "invalid_value", "The request is invalid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: (
        "request_forbidden",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    409: ("invalid_request_error", "conflict", "The resource was updated by another request."),
    413: ("invalid_request_error", "request_too_large", "The request is too large."),
    422: ("invalid_request_error", "unprocessable_entity", "The request could not be processed."),
    429: (
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached for requests per min. Please try again in 1s. "
        "Visit https://platform.openai.com/account/rate-limits to learn more.",
    ),
    503: ("service_unavailable_error", "server_overloaded", "The server is currently overloaded with other requests."),
}
_SERVER_ERROR = (
    "server_error",
    None,
    "The server had an error while processing your request. Sorry about that!",
)


def by_status(status: int) -> ApiError:
    """The error that OpenAI sends with `status`."""
    kind, code, message = _BY_STATUS.get(status, _SERVER_ERROR)
    return ApiError(status, message, type=kind, code=code)


def key_missing() -> ApiError:
    return ApiError(401, "You didn't provide an API key. You need to provide it in an Authorization header.")


def key_incorrect(key: str) -> ApiError:
    shown = f"{key[:3]}{'*' * 8}{key[-4:]}" if len(key) > 11 else "*" * 8
    return ApiError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")


def model_missing() -> ApiError:
    return ApiError(400, "you must provide a model parameter")


def model_unknown(model: str) -> ApiError:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return ApiError(404, message, code="model_not_found")


def json_unreadable() -> ApiError:
    return ApiError(400, "We could not parse the JSON body of your request.")


def parameter_missing(param: str) -> ApiError:
    message = f"Missing required parameter: '{param}'."
    return ApiError(400, message, param=param, code="missing_required_parameter")


def parameter_invalid(param: str | None, message: str, code: str) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def path_unknown(method: str, path: str) -> ApiError:
    return ApiError(404, f"Invalid URL ({method} {path})")


def method_not_allowed(method: str, path: str) -> ApiError:
    message = f"Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)"
    return ApiError(405, message)


def body_too_large() -> ApiError:
    return by_status(413)
