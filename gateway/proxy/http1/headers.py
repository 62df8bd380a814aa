"""Header fields as bytes: which of them travel on, and how a head is written. Pure.

What the transport itself writes (Host, Content-Length, Transfer-Encoding, Connection) never travels on.
"""

Headers = list[tuple[bytes, bytes]]  # as received: order, case and duplicates kept
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


def forwardable(headers: Headers) -> Headers:
    """Return what travels on: neither hop-by-hop fields, nor those that Connection names, nor what each side writes.

    >>> forwardable([(b"X-A", b"1"), (b"Connection", b"close, X-B"), (b"x-b", b"2"), (b"Host", b"a")])
    [(b'X-A', b'1')]
    """
    kept = [header for header in headers if header[0].lower() not in _NOT_FORWARDED]
    if len(kept) != len(headers):
        named = connection_options(headers) - _NOT_FORWARDED
        if named:
            return [header for header in kept if header[0].lower() not in named]
    return kept


def connection_options(headers: Headers) -> set[bytes]:
    """The options, in lower case, of all Connection fields."""
    options: set[bytes] = set()
    for name, value in headers:
        if len(name) == 10 and name.lower() == b"connection":
            options.update(option.strip() for option in value.lower().split(b","))
    return options


def fields_of(headers: Headers) -> Fields:
    """Return the first value of each field by its lower-case name.

    >>> fields_of([(b"A", b"1"), (b"a", b"2")])
    {b'a': b'1'}
    """
    return {name.lower(): value for name, value in reversed(headers)}


def encode_head(start_line: bytes, headers: Headers, framing: bytes) -> bytes:
    """Return a whole head. `framing` is what the transport adds: lines that end in CRLF, then the empty line.

    Raises ValueError for a name or value with a line feed, since it would end the head where its author did not.

    >>> encode_head(b"HTTP/1.1 200 OK", [(b"A", b"1")], b"Content-Length: 0\\r\\n\\r\\n")
    b'HTTP/1.1 200 OK\\r\\nA: 1\\r\\nContent-Length: 0\\r\\n\\r\\n'
    """
    lines = [start_line]
    lines += map(b": ".join, headers)
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(headers):
        raise ValueError("a header field holds a line feed")
    return head + b"\r\n" + framing
