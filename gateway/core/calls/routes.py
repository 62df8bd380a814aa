"""The table of what each public path is: metered, free, not offered, or the control plane's.

Paths are matched raw, never normalised: an upstream might resolve `/v1/models/../chat/completions` to something that
costs money.
"""

import re
from enum import Enum

from gateway.core.calls.calls import Endpoint
from gateway.core.errors import EndpointNotAllowed, MethodNotAllowed, NotFound


class Free(Enum):
    """Relayed for any valid key, without a hold."""

    MODELS = "models"
    MODERATIONS = "moderations"


class Session(Enum):
    """Switched to a WebSocket, if the operator sells that."""

    REALTIME = "realtime"


class Own(Enum):
    """Answered by the gateway itself, without a key."""

    HEALTH = "health"
    READY = "ready"


class Control(Enum):
    """For the control plane, which knows its own paths."""

    WEB = "web"


Route = Endpoint | Free | Session | Own | Control

_EXACT: dict[bytes, tuple[bytes, Route]] = {
    b"/v1/chat/completions": (b"POST", Endpoint.CHAT),
    b"/v1/completions": (b"POST", Endpoint.COMPLETIONS),
    b"/v1/responses": (b"POST", Endpoint.RESPONSES),
    b"/v1/embeddings": (b"POST", Endpoint.EMBEDDINGS),
    b"/v1/moderations": (b"POST", Free.MODERATIONS),
    b"/v1/models": (b"GET", Free.MODELS),
    b"/v1/realtime": (b"GET", Session.REALTIME),
    b"/health": (b"GET", Own.HEALTH),
    b"/readyz": (b"GET", Own.READY),
}
_ONE_MODEL = re.compile(rb"/v1/models/[A-Za-z0-9](?:[A-Za-z0-9._:-]|%3[Aa])*")

# Of plain characters only, so that the control plane's parser has nothing to guess; versions are the OpenAI API's.
_CONTROL = re.compile(rb"/(?!/|v[0-9])[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")

# Parts of the OpenAI API that exist and are not offered: a clearer answer than 404.
_NOT_OFFERED = re.compile(
    rb"/v1/(?:assistants|audio|batches|chat|containers|conversations|evals|files|fine_tuning|images|models|organization"
    rb"|realtime|responses|threads|uploads|vector_stores|videos)(?:/.*)?"
)


def route(method: bytes, path: bytes) -> Route:
    """Look a request up; raises `NotFound`, `EndpointNotAllowed` or `MethodNotAllowed`."""
    found = _EXACT.get(path)
    if found is None and _ONE_MODEL.fullmatch(path):
        found = (b"GET", Free.MODELS)
    if found is None:
        if _NOT_OFFERED.fullmatch(path):
            raise EndpointNotAllowed
        if _CONTROL.fullmatch(path):
            return Control.WEB
        raise NotFound
    allowed, target = found
    if method != allowed:
        raise MethodNotAllowed(f"This path takes {allowed.decode()} only.")
    return target
