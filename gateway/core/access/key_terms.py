"""What a key may be used for, as its owner asks for it. Pure: the moment is an argument."""

import re
from datetime import datetime
from ipaddress import ip_network

import msgspec

from gateway.core.access.addresses import Network
from gateway.core.access.callers import DEFAULT_SCOPES, Priority, Scope

NAME_LENGTH_MAX = 200
PATTERNS_MAX = 64

# Of what models and paths are made of, and the wildcards: no class in brackets, which nobody expects in a name.
_PATTERN = re.compile(r"[A-Za-z0-9._:/*?-]{1,128}")

# Calendars end in 9999, and some sooner by their offset.
YEAR_MAX = 3000


class KeyTerms(msgspec.Struct, frozen=True, kw_only=True):
    """A key's name, whose it is, what it may do, and until when."""

    name: str = ""
    member_id: str | None = None
    scopes: frozenset[str] = DEFAULT_SCOPES
    expires_at: datetime | None = None
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL  # normal: that of its account


def read_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """The networks; an address alone is a network of one. Raises ValueError.

    >>> [str(each) for each in read_networks(("10.0.0.0/8", "2001:db8::1"))]
    ['10.0.0.0/8', '2001:db8::1/128']
    """
    return tuple(ip_network(text) for text in texts)


def mistake_in(terms: KeyTerms, now: datetime) -> tuple[str, str] | None:
    """The field that is wrong, and what would be right; None for a key that can be issued.

    >>> mistake_in(KeyTerms(scopes=frozenset({"fly"})), datetime(2026, 11, 21))
    ('scopes', 'scopes are some of buy, calls, manage, read, report')
    """
    if len(terms.name) > NAME_LENGTH_MAX or not (terms.name.isprintable()):
        return "name", f"a name is at most {NAME_LENGTH_MAX} printable characters"
    if not terms.scopes or not terms.scopes <= set(Scope):
        return "scopes", f"scopes are some of {', '.join(sorted(Scope))}"
    if terms.expires_at is not None and not _is_to_come(terms.expires_at, now):
        return "expires_at", f"an expiry is a moment to come, before {YEAR_MAX}, with its offset"
    for field, given in (("models", terms.models), ("endpoints", terms.endpoints), ("networks", terms.networks)):
        if len(given) > PATTERNS_MAX:
            return field, f"at most {PATTERNS_MAX} {field} can be named"
    for field, given in (("models", terms.models), ("endpoints", terms.endpoints)):
        if not all(_PATTERN.fullmatch(each) for each in given):
            return field, f"{field} are names or patterns like {'gpt-4o*' if field == 'models' else '/v1/chat/*'}"
    try:
        read_networks(terms.networks)
    except ValueError:
        return "networks", "networks are like 192.0.2.0/24 or 2001:db8::/32, without bits behind the prefix"
    return None


def _is_to_come(moment: datetime, now: datetime) -> bool:
    return moment.tzinfo is not None and moment.year < YEAR_MAX and moment > now
