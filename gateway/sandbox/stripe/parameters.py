"""What a call may be given, taken from the official SDK's typed dictionaries: Stripe knows exactly these names.

An unknown name, a missing one, a number that is none and a word outside its list are refused as Stripe refuses them.
"""

import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from stripe import RequestOptions

from gateway.sandbox.stripe.errors import StripeError, invalid

_OF_THE_CLIENT = frozenset(RequestOptions.__annotations__)
_UNRESOLVED = {"StripeContext": str, "Mapping": Mapping}  # what the SDK names where it is not known


class Schema:
    """The members of one typed dictionary."""

    def __init__(self, definition: type) -> None:
        hints = get_type_hints(definition, localns=_UNRESOLVED)
        self.members = {name: hint for name, hint in hints.items() if name not in _OF_THE_CLIENT}
        self.required = frozenset(getattr(definition, "__required_keys__", ())) - _OF_THE_CLIENT


@cache
def schema_of(definition: type) -> Schema:
    return Schema(definition)


def read_parameters(definition: type, given: dict[str, Any], extra: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Check and convert `given` (strings, dicts, lists); names in `extra` pass as they are. Raises `StripeError`."""
    return _members(definition, given, "", extra)


def _members(definition: type, given: dict[str, Any], path: str, extra: frozenset[str] = frozenset()) -> dict[str, Any]:
    schema = schema_of(definition)
    read = {}
    for name, value in given.items():
        full = f"{path}[{name}]" if path else name
        if name in schema.members:
            read[name] = _value(schema.members[name], value, full)
        elif name in extra:
            read[name] = value
        else:
            raise invalid(f"Received unknown parameter: {full}", code="parameter_unknown", param=full)
    for name in sorted(schema.required - given.keys()):
        full = f"{path}[{name}]" if path else name
        raise invalid(f"Missing required param: {full}.", code="parameter_missing", param=full)
    return read


def _choices(hint: Any) -> list[Any]:
    """The members of a union, flat."""
    if get_origin(hint) in (Union, types.UnionType):
        return [choice for member in get_args(hint) for choice in _choices(member)]
    return [hint]


def _value(hint: Any, value: Any, path: str) -> Any:
    choices = _choices(hint)
    if isinstance(value, dict):
        return _hash(choices, value, path)
    if isinstance(value, list):
        return _array(choices, value, path)
    return _word(choices, value, path)


def _hash(choices: list[Any], value: dict[str, Any], path: str) -> Any:
    for choice in choices:
        if hasattr(choice, "__required_keys__"):
            return _members(choice, value, path)
        if get_origin(choice) is dict:
            of = get_args(choice)[1]
            return {key: item if item == "" else _value(of, item, f"{path}[{key}]") for key, item in value.items()}
    raise invalid(f"Invalid {path}: a hash was not expected.", param=path)


def _array(choices: list[Any], value: list[Any], path: str) -> Any:
    for choice in choices:
        if get_origin(choice) is list:
            return [_value(get_args(choice)[0], item, f"{path}[{index}]") for index, item in enumerate(value)]
    return _hash(choices, {str(index): item for index, item in enumerate(value)}, path)  # keys that are numbers


def _word(choices: list[Any], value: str, path: str) -> Any:
    words = [word for choice in choices if get_origin(choice) is Literal for word in get_args(choice)]
    if value in words:
        return value
    if value == "":
        raise _cannot_be_unset(path)
    if bool in choices and value in ("true", "false"):
        return value == "true"
    if int in choices and value.removeprefix("-").isdecimal() and len(value) < 20:
        return int(value)
    if any(words):
        listed = ", ".join(word for word in words if word)
        raise invalid(f"Invalid {path}: must be one of {listed}", param=path)
    if str in choices or any(getattr(choice, "__name__", "") == "Decimal" for choice in choices):
        return value
    if int in choices:
        raise invalid(f"Invalid integer: {value[:80]}", code="parameter_invalid_integer", param=path)
    if bool in choices:
        raise invalid(f"Invalid boolean: {value[:80]}", param=path)
    expected = "array" if any(get_origin(choice) is list for choice in choices) else "hash"
    raise invalid(f"Invalid {expected}: {value[:80]}", param=path)


def _cannot_be_unset(path: str) -> StripeError:
    return invalid(
        f"You passed an empty string for '{path}'. We assume empty values are an attempt to unset a parameter; however "
        f"'{path}' cannot be unset. You should remove '{path}' from your request or supply a non-empty value.",
        code="parameter_invalid_empty",
        param=path,
    )
