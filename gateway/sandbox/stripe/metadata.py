"""Metadata, which every object carries, and how an update changes it."""

from typing import Any

from gateway.sandbox.stripe.objects import Metadata


def merged(old: Metadata, given: Any) -> Metadata:
    """Metadata after an update: an empty value removes its key, an empty string removes all.

    >>> merged({"a": "1", "b": "2"}, {"b": "", "c": "3"}), merged({"a": "1"}, "")
    ({'a': '1', 'c': '3'}, {})
    """
    if given == "":
        return {}
    return {key: value for key, value in {**old, **(given or {})}.items() if value != ""}
