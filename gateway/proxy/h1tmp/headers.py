"""Which header fields are of one connection only, and which go end to end. Pure; RFC 9110 §7.6.1."""

Headers = list[tuple[bytes, bytes]]

# Framing is written anew on each side from the body that is really sent; Host names the side that is spoken to.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
        b"expect",
        b"host",
    }
)


def forwardable(headers: Headers) -> Headers:
    """The end-to-end fields, in their order, case and number.

    >>> forwardable([(b"Connection", b"x-a, close"), (b"X-A", b"1"), (b"X-b", b"2"), (b"x-B", b"3")])
    [(b'X-b', b'2'), (b'x-B', b'3')]
    """
    named: set[bytes] = set()
    kept: Headers = []
    for field in headers:
        name = field[0].lower()
        if name not in HOP_BY_HOP:
            kept.append(field)
        elif name == b"connection":
            named.update(token.strip().lower() for token in field[1].split(b","))
    if named - HOP_BY_HOP:
        return [field for field in kept if field[0].lower() not in named]
    return kept


def value_of(headers: Headers, name: bytes) -> bytes | None:
    """The first value of the field `name` (lower case)."""
    return next((value for key, value in headers if key.lower() == name), None)
