"""What goes wrong on the wire: refusals of the edge with the HTTP status they mean, and how an upstream can fail."""

from gateway.core.errors import GatewayError


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class VersionNotSupported(GatewayError):
    """Only HTTP/1.1 and HTTP/1.0 are spoken here."""

    status, code, type = 505, "http_version_not_supported", "invalid_request_error"


class CodingNotSupported(GatewayError):
    """The only transfer coding understood here is chunked."""

    status, code, type = 501, "transfer_coding_not_supported", "invalid_request_error"


class ExpectationFailed(GatewayError):
    """The only expectation that can be met here is 100-continue."""

    status, code, type = 417, "expectation_failed", "invalid_request_error"


class UpstreamFailed(Exception):
    """The upstream did not do its part."""


class PoolExhausted(UpstreamFailed):
    """As many connections as are allowed are in use."""


class ConnectFailed(UpstreamFailed):
    """No connection could be made; nothing was sent."""


class HeadTimeout(UpstreamFailed):
    """The request was sent, and no answer began in time."""


class AnswerBroken(UpstreamFailed):
    """The answer was cut, malformed, stalled or given up."""


class Unanswered(AnswerBroken):
    """The connection was closed before a byte of the answer arrived."""


class AnswerTooLarge(UpstreamFailed):
    """The answer is larger than asked for. `received` is what came so far; `pump` goes on behind it."""

    def __init__(self, received: bytes) -> None:
        super().__init__(f"more than {len(received)} bytes")
        self.received = received
