"""What keeps a key from some calls, and what those are told who are out of service."""

from ipaddress import ip_address, ip_network

import pytest

from gateway.core.access.callers import Caller, Restrictions
from gateway.core.calls.calls import Endpoint, parse
from gateway.core.errors import (
    AccountInReview,
    AccountSuspended,
    AddressNotAllowed,
    EndpointNotAllowed,
    GatewayError,
    ModelNotAllowed,
    ScopeMissing,
)
from gateway.core.guard.policy import Controls, admit_call, admit_request

CHAT = "/v1/chat/completions"
HERE = ip_address("192.0.2.7")


@pytest.mark.parametrize(
    ("restrictions", "error"),
    [
        (Restrictions(may_call=False), ScopeMissing),
        (Restrictions(networks=(ip_network("198.51.100.0/24"),)), AddressNotAllowed),
        (Restrictions(networks=(ip_network("2001:db8::/32"),)), AddressNotAllowed),
        (Restrictions(endpoints=("/v1/embeddings", "/v1/models*")), EndpointNotAllowed),
    ],
)
def test_a_request_outside_a_keys_bounds_is_refused(restrictions: Restrictions, error: type[GatewayError]) -> None:
    with pytest.raises(error):
        restrictions.check_request(CHAT, HERE)


def test_a_request_inside_a_keys_bounds_is_let_through() -> None:
    Restrictions(networks=(ip_network("192.0.2.0/24"),), endpoints=("/v1/chat/*",)).check_request(CHAT, HERE)


def test_a_key_of_some_networks_serves_nobody_whose_address_is_not_known() -> None:
    with pytest.raises(AddressNotAllowed):
        Restrictions(networks=(ip_network("0.0.0.0/0"),)).check_request(CHAT, None)


@pytest.mark.parametrize(
    ("model", "allowed"), [("gpt-4o", True), ("gpt-4o-mini", True), ("gpt-4", False), ("GPT-4o", False)]
)
def test_a_key_uses_the_models_of_its_list(model: str, allowed: bool) -> None:
    caller = Caller("a", "k", restrictions=Restrictions(models=("gpt-4o*", "o1")))
    call = parse(Endpoint.EMBEDDINGS, b'{"model": "%b", "input": "x"}' % model.encode())
    if allowed:
        admit_call(caller, call)
    else:
        with pytest.raises(ModelNotAllowed, match=model) as refusal:
            admit_call(caller, call)
        assert refusal.value.param == "model"


def test_who_is_in_review_is_told_the_reference() -> None:
    with pytest.raises(AccountInReview, match="rev_1") as refusal:
        admit_request(Caller("a", "k", "in_review", review="rev_1"), CHAT, Controls(), 0)
    assert refusal.value.details == {"reference": "rev_1"}
    with pytest.raises(AccountInReview):
        admit_request(Caller("a", "k", "in_review"), CHAT, Controls(), 0)
    with pytest.raises(AccountSuspended):
        admit_request(Caller("a", "k", "suspended"), CHAT, Controls(), 0)
