"""Whether an object has the shape that the official SDK gives its class: names, types, words, and what may be null."""

import types
from decimal import Decimal
from functools import cache
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import stripe


def misshapen(kind: type, tree: Any, path: str = "") -> list[str]:
    """What is wrong with `tree` as an object of the SDK's class `kind`; empty if nothing is."""
    hints = hints_of(kind)
    found = [f"{path}.{name} is unknown" for name in tree.keys() - hints.keys()]
    for name, hint in hints.items():
        if name in tree:
            found += _wrong(hint, tree[name], f"{path}.{name}")
        elif type(None) not in _choices(hint):
            found.append(f"{path}.{name} is missing")
    return found


@cache
def hints_of(kind: type) -> dict[str, Any]:
    """The members of the class; names that it imports for type checkers only mean anything."""
    unresolved: dict[str, Any] = {}
    while True:
        try:
            hints = get_type_hints(kind, localns=unresolved)
        except NameError as error:
            unresolved[error.name or ""] = Any
        else:
            return {name: hint for name, hint in hints.items() if not name.startswith("_") and not _of_class(hint)}


def _of_class(hint: Any) -> bool:
    return hint is ClassVar or get_origin(hint) is ClassVar


def _choices(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [choice for member in get_args(hint) for choice in _choices(member)]
    return [hint]


def _wrong(hint: Any, value: Any, path: str) -> list[str]:
    choices = _choices(hint)
    if Any in choices or (value is None and type(None) in choices):
        return []
    words = [word for choice in choices if get_origin(choice) is Literal for word in get_args(choice)]
    if words and isinstance(value, str):
        return [] if value in words else [f"{path} is {value!r}, not one of {words}"]
    if isinstance(value, list):
        of = next((get_args(choice)[0] for choice in choices if get_origin(choice) is list), None)
        if of is None:
            return [f"{path} is a list"]
        return [wrong for index, each in enumerate(value) for wrong in _wrong(of, each, f"{path}[{index}]")]
    if isinstance(value, dict):
        return _wrong_hash(choices, value, path)
    if isinstance(value, str) and Decimal in choices:
        return []
    return [] if type(value) in choices else [f"{path} is {value!r}, not {hint}"]


def _wrong_hash(choices: list[Any], value: dict[str, Any], path: str) -> list[str]:
    for choice in choices:
        origin = get_origin(choice)
        if choice is dict or origin in (dict, stripe.ListObject) or "Untyped" in getattr(origin, "__name__", ""):
            return []
        if isinstance(choice, type) and issubclass(choice, stripe.StripeObject):
            return misshapen(choice, value, path)
    return [f"{path} is a hash"]
