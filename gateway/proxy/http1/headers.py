"""Header fields as bytes: which of them travel on, and how a head is written. Pure.

What the transport itself writes (Host, Content-Length, Transfer-Encoding, Connection) never travels on.
"""

Header = tuple[bytes, bytes]
Headers = list[Header]  # as received: order, case and duplicates kept
Fields = dict[bytes, bytes]  # lower-case name → first value

_NOT_FORWARDED = frozenset(
    {
        # hop-by-hop, RFC 9110 §7.6.1
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        # written or answered by the transport of each side
        b"content-length",
        b"expect",
        b"host",
    }
)
# What proxies say of a caller: no caller can have it taken away by naming it in Connection.
_VOUCHED = frozenset({b"x-forwarded-for"})
_CONNECTION_LENGTH = len(b"connection")


def survey(headers: Headers) -> tuple[Fields, Headers]:
    """Return the first value of each field by its lower-case name, and the fields that travel on.

    Those are neither hop-by-hop fields, nor those that Connection names, nor what each side writes itself.

    >>> survey([(b"X-A", b"1"), (b"x-a", b"2"), (b"Connection", b"close, X-B"), (b"x-b", b"3"), (b"Host", b"a")])[1]
    [(b'X-A', b'1'), (b'x-a', b'2')]
    """
    fields: Fields = {}
    travelling: Headers = []
    for field in headers:
        name = field[0].lower()
        if name not in fields:
            fields[name] = field[1]
        if name not in _NOT_FORWARDED:
            travelling.append(field)
    if b"connection" in fields and (len(fields) != len(headers) or fields[b"connection"] != b"keep-alive"):
        named = connection_options(headers) - _NOT_FORWARDED - _VOUCHED
        if named:
            travelling = [field for field in travelling if field[0].lower() not in named]
    return fields, travelling


def connection_options(headers: Headers) -> set[bytes]:
    """The options, in lower case, of all Connection fields."""
    options: set[bytes] = set()
    for name, value in headers:
        if len(name) == _CONNECTION_LENGTH and name.lower() == b"connection":
            options.update(option.strip() for option in value.lower().split(b","))
    return options


def without(headers: Headers, name: bytes) -> Headers:
    """The fields that do not have this lower-case name."""
    return [field for field in headers if field[0].lower() != name]


def encode(headers: Headers) -> bytes:
    """Write header lines, each with its line end.

    Raises ValueError for a name or value with a line feed, since it would end the line where its author did not.

    >>> encode([(b"A", b"1"), (b"B", b"2")])
    b'A: 1\\r\\nB: 2\\r\\n'
    """
    if not headers:
        return b""
    lines = b"\r\n".join(map(b": ".join, headers)) + b"\r\n"
    if lines.count(b"\n") != len(headers):
        raise ValueError("a header field holds a line feed")
    return lines
