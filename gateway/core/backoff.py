"""How long to wait before something is tried again: twice as long each time, up to a bound."""


def backoff_s(attempts: int, *, first_s: int, longest_s: int) -> int:
    """How long to wait after the attempt of this number, from 1 on.

    >>> [backoff_s(n, first_s=1, longest_s=60) for n in (1, 2, 3, 9)]
    [1, 2, 4, 60]
    """
    doubled: int = first_s << min(attempts - 1, 30)
    return min(doubled, longest_s)
