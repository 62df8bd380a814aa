"""Stripe's form encoding, `a[b][0][c]=d`, read into dicts, lists and strings. Types are no business of this module."""

import re
from collections.abc import Iterable
from typing import Any

from gateway.sandbox.stripe.errors import invalid

_KEY = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")
_PART = re.compile(r"\[([^\[\]]*)\]")
_DEPTH_MAX = 12


def read_form(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Nest the pairs of a query or form body; a list keeps the order of its indices.

    >>> read_form([("amount", "5"), ("metadata[a]", "b"), ("items[0][price]", "p"), ("types[]", "x"), ("types[]", "y")])
    {'amount': '5', 'metadata': {'a': 'b'}, 'items': [{'price': 'p'}], 'types': ['x', 'y']}
    """
    root: dict[str, Any] = {}
    for key, value in pairs:
        match = _KEY.match(key)
        if match is None:
            raise invalid(f"Invalid parameter name: {key[:80]}", param=key[:80])
        path = [match[1], *_PART.findall(match[2])]
        if len(path) > _DEPTH_MAX:
            raise invalid("Parameters are nested too deeply.", param=match[1])
        _place(root, path, value)
    return {key: _listed(value) for key, value in root.items()}


def _place(node: dict[str, Any], path: list[str], value: str) -> None:
    for part, following in zip(path, [*path[1:], None], strict=True):
        name = part or str(len(node))
        if following is None:
            if isinstance(node.get(name), dict):
                raise invalid(f"Invalid parameter: {path[0]} is both a value and a hash.", param=path[0])
            node[name] = value
            return
        below = node.setdefault(name, {})
        if not isinstance(below, dict):
            raise invalid(f"Invalid parameter: {path[0]} is both a value and a hash.", param=path[0])
        node = below


def _listed(value: Any) -> Any:
    """Dicts whose keys are all numbers are lists; a metadata key that is a number is put back by its type."""
    if not isinstance(value, dict):
        return value
    below = {key: _listed(item) for key, item in value.items()}
    if below and all(key.isdecimal() for key in below):
        return [below[key] for key in sorted(below, key=int)]
    return below
