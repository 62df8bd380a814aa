import pytest

from gateway.core.calls.calls import Endpoint
from gateway.core.calls.routes import Control, Free, Session, route
from gateway.core.errors import EndpointNotAllowed, MethodNotAllowed, NotFound


def test_metered_paths_are_posts() -> None:
    assert route(b"POST", b"/v1/chat/completions") is Endpoint.CHAT
    with pytest.raises(MethodNotAllowed):
        route(b"GET", b"/v1/chat/completions")


def test_models_and_moderations_are_free() -> None:
    assert route(b"GET", b"/v1/models") is Free.MODELS
    assert route(b"GET", b"/v1/models/ft:gpt-4o:org::id") is Free.MODELS
    assert route(b"GET", b"/v1/models/ft%3Agpt-4o") is Free.MODELS
    assert route(b"POST", b"/v1/moderations") is Free.MODERATIONS


def test_the_realtime_api_is_a_session() -> None:
    assert route(b"GET", b"/v1/realtime") is Session.REALTIME
    with pytest.raises(MethodNotAllowed):
        route(b"POST", b"/v1/realtime")


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/models/../chat/completions",
        b"/v1/models/..%2fchat",
        b"/v1/models/a/b",
        b"/v1/models/",
        b"/v1/images/generations",
        b"/v1/responses/resp_1",
        b"/v1/chat/completions/",
        b"/v1/realtime/",
        b"/v1/realtime/calls",
    ],
)
def test_what_the_meter_does_not_cover_is_not_offered(path: bytes) -> None:
    with pytest.raises(EndpointNotAllowed):
        route(b"GET", path)


@pytest.mark.parametrize(
    "path", [b"/", b"/api/status", b"/billing/statements/2026-11.pdf", b"/webhooks/stripe", b"/x%20y"]
)
def test_what_is_not_the_openai_apis_is_the_control_planes(path: bytes) -> None:
    assert route(b"GET", path) is Control.WEB
    assert route(b"POST", path) is Control.WEB


@pytest.mark.parametrize(
    "path",
    [
        b"/api/<x>",
        b"/api\\status",
        b"/\xff",
        b"//v1/chat/completions",
        b"/v1",
        b"/v2/models",
        b"/v1/%63hat/completions",
        b"*",
    ],
)
def test_unknown_paths_are_not_found(path: bytes) -> None:
    with pytest.raises(NotFound):
        route(b"POST", path)
