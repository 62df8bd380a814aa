"""Which parameters a call simulates: its keyword arguments, and no others, though Stripe may know more."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.objects import Json


@cache
def arguments_of(call: Callable[..., Any]) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the keyword arguments of `call`, and of those that it needs."""
    keywords = [each for each in inspect.signature(call).parameters.values() if each.kind is each.KEYWORD_ONLY]
    needed = frozenset(each.name for each in keywords if each.default is each.empty)
    return frozenset(each.name for each in keywords), needed


def simulated(call: Callable[..., Any], given: Json, where: str) -> Json:
    """`given` as arguments for `call`; refused if it holds what `call` does not simulate or lacks what it needs."""
    takes, needs = arguments_of(call)
    return checked(given, takes, needs, where)


def checked(given: Json, takes: frozenset[str], needs: frozenset[str], where: str = "") -> Json:
    for name in sorted(given.keys() - takes):
        param = _within(where, name)
        raise invalid(f"The sandbox does not simulate the parameter {param} of this call.", param=param)
    for name in sorted(needs - given.keys()):
        param = _within(where, name)
        raise invalid(f"Missing required param: {param}.", code="parameter_missing", param=param)
    return given


def _within(where: str, name: str) -> str:
    return f"{where}[{name}]" if where else name
