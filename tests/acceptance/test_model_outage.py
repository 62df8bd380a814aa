"""An outage of the model provider before two gateways, as callers and the operator live through it."""

import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from openai import APIStatusError, OpenAI

from tests.patience import PATIENCE_S
from tests.up import Stack

MODEL = "gpt-4o-mini"


@pytest.fixture(scope="module")
def client(pair: Stack) -> Iterator[OpenAI]:
    _, key = pair.new_caller("outage", 1000)
    with OpenAI(base_url=pair.base_url, api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture(autouse=True)
def well_again(pair: Stack) -> Iterator[None]:
    """Whatever a test finds, the next one finds an upstream that answers."""
    yield
    behave(pair, "")


def behave(pair: Stack, scenario: str) -> None:
    """From now on, every request of the upstream goes so."""
    asked = urllib.request.Request(f"{pair.upstream_url}/sandbox/scenario", scenario.encode(), method="PUT")
    with urllib.request.urlopen(asked) as answer:
        assert answer.status == 204


def code_of(client: OpenAI) -> str:
    """What a call on a connection of its own is answered with, so by either gateway: "" if it is served."""
    try:
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hi"}],
            max_completion_tokens=16,
            extra_headers={"Connection": "close"},
        )
    except APIStatusError as error:
        return str(error.code)
    return ""


def shown_state(pair: Stack) -> str:
    """Of the model's breaker; "" if it never opened."""
    return {each["breaker"]: str(each["state"]) for each in pair.tollgate("breakers", "show")}.get(MODEL, "")


def wait_for(condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PATIENCE_S, "it did not come to pass"
        time.sleep(0.05)


def test_an_outage_opens_the_breaker_on_both_gateways_and_it_closes_by_itself(pair: Stack, client: OpenAI) -> None:
    assert code_of(client) == ""
    behave(pair, "status=500")
    wait_for(lambda: {code_of(client) for _ in range(6)} == {"model_unavailable"})
    wait_for(lambda: shown_state(pair) in ("open", "half_open"))  # each gateway refuses before it has told the fleet

    behave(pair, "")
    wait_for(lambda: {code_of(client) for _ in range(6)} == {""})
    wait_for(lambda: shown_state(pair) == "closed")


def test_a_brownout_is_in_force_on_both_gateways_until_it_is_cleared(pair: Stack, client: OpenAI) -> None:
    pair.tollgate("brownout", "set", MODEL, "4", "--for", "5m", "--reason", "a drill")
    wait_for(lambda: {code_of(client) for _ in range(6)} == {"model_browned_out"})
    pair.tollgate("brownout", "clear", MODEL, "--reason", "over")
    wait_for(lambda: {code_of(client) for _ in range(6)} == {""})
