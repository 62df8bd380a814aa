"""Pages of objects, newest first, as every list at Stripe is read; and search, which is the same by a query."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.objects import Identified, Json
from gateway.sandbox.stripe.world import World

_LIMIT_MAX: Final = 100
_COMPARISONS: Final[dict[str, Callable[[int, int], bool]]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}
_CLAUSE: Final = re.compile(r"""\s*(\w+)(?:\[["']([^"']+)["']\])?\s*([:<>]=?)\s*(?:"([^"]*)"|'([^']*)'|(\d+))\s*""")


def page(things: Iterable[Identified], url: str, given: Json) -> Json:
    """One page of `things`, which come newest first. `given` holds the page's parameters and takes no others."""
    limit = given.get("limit", 10)
    if not 1 <= limit <= _LIMIT_MAX:
        raise invalid("Invalid limit: must be between 1 and 100.", code="parameter_invalid_integer", param="limit")
    after, before = given.get("starting_after"), given.get("ending_before")
    if after and before:
        raise invalid("You may only specify one of these parameters: ending_before, starting_after.")
    shown: list[Identified] = []
    if before:
        newer = _until(things, before, "ending_before")
        return _list(url, newer[-limit:], len(newer) > limit)
    iterator = iter(things)
    if after:
        _until(iterator, after, "starting_after")
    for thing in iterator:
        if len(shown) == limit:
            return _list(url, shown, True)
        shown.append(thing)
    return _list(url, shown, False)


def _list(url: str, data: list[Identified], has_more: bool) -> Json:
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def _until(things: Iterable[Identified], cursor: str, param: str) -> list[Identified]:
    """What comes before the object of that id, which is consumed."""
    seen: list[Identified] = []
    for thing in things:
        if thing.id == cursor:
            return seen
        seen.append(thing)
    raise invalid(f"No such object: '{cursor}'", code="resource_missing", param=param)


def created_within(thing: Any, created: Any) -> bool:
    """Whether the object was made then: at a second, or between bounds."""
    if isinstance(created, int):
        return bool(thing.created == created)
    return all(_COMPARISONS[name](thing.created, bound) for name, bound in created.items())


def search(world: World, kind: type[Identified], url: str, query: str, limit: int, start: str | None) -> Json:
    """What matches all (`AND`) or any (`OR`) clauses of `query`, among what is old enough to be indexed."""
    words = re.split(r"\s+(AND|OR)\s+", query.strip())
    joins = set(words[1::2])
    if len(joins) > 1:
        raise invalid("We do not support AND and OR in one query.", param="query")
    clauses = [_clause(word) for word in words[::2]]
    combine = any if "OR" in joins else all
    newest = world.now - world.settings.search_lag_s
    skipped = int(start) if start and start.isdecimal() else 0
    found = [
        thing
        for thing in world.newest_first(kind)
        if getattr(thing, "created", 0) <= newest and combine(clause(thing) for clause in clauses)
    ]
    shown = found[skipped : skipped + limit]
    more = len(found) > skipped + limit
    following = str(skipped + limit) if more else None
    return {"object": "search_result", "data": shown, "has_more": more, "next_page": following, "url": url}


def _clause(text: str) -> Callable[[Any], bool]:
    match = _CLAUSE.fullmatch(text)
    if match is None:
        raise invalid(f"We were unable to parse your search query: {text[:200]}", param="query")
    name, key, operator, *quoted = match.groups()
    wanted = next(value for value in quoted if value is not None)

    def holds(thing: Any) -> bool:
        value = getattr(thing, name, None)
        value = (value or {}).get(key) if key else value
        if operator == ":":
            return str(value) == wanted
        names = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
        return isinstance(value, int) and wanted.isdecimal() and _COMPARISONS[names[operator]](value, int(wanted))

    return holds
