"""Spans of time as people write them: 30s, 15m, 24h, 7d."""

import re
from datetime import timedelta

_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def read_span(text: str) -> timedelta:
    """Raises ValueError.

    >>> read_span("24h"), read_span("0s")
    (datetime.timedelta(days=1), datetime.timedelta(0))
    """
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise ValueError("a span of time is a number and its unit: 30s, 15m, 24h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
