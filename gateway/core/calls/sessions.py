"""Whether a session is relayed whose use nobody meters: never, unless the operator has said so. Pure."""

from enum import StrEnum
from urllib.parse import parse_qs

from gateway.core.errors import EndpointNotAllowed, InvalidRequest, Overloaded


class Selling(StrEnum):
    """What the operator does with realtime sessions."""

    REFUSE = "refuse"
    UNMETERED = "unmetered"  # relayed at the operator's own cost, and counted


def admit_session(selling: Selling, *, is_websocket: bool, is_followed: bool, running: int, running_max: int) -> None:
    """Raise the `GatewayError` that refuses a session, if one does.

    >>> admit_session(Selling.UNMETERED, is_websocket=True, is_followed=False, running=0, running_max=1)
    """
    if selling is Selling.REFUSE:
        raise EndpointNotAllowed(
            "Realtime sessions are not offered: this gateway does not meter them yet, and its operator has not"
            " allowed unmetered ones (realtime.sessions)."
        )
    if not is_websocket:
        raise InvalidRequest("This path takes WebSocket handshakes only: 'Connection: Upgrade', 'Upgrade: websocket'.")
    if is_followed:
        raise InvalidRequest("Nothing may follow the request for a WebSocket before it is answered.")
    if running >= running_max:
        raise Overloaded("This gateway holds as many sessions as it can; try again in a moment.", retry_after_s=1)


def model_asked(target: bytes) -> str:
    """The model that a session's target names; of several, or none, something that no model is called.

    >>> model_asked(b"/v1/realtime?model=gpt-realtime"), model_asked(b"/v1/realtime?model=a&model=b")
    ('gpt-realtime', 'a, b')
    """
    query = target.partition(b"?")[2].decode("latin-1")
    return ", ".join(parse_qs(query).get("model", []))
