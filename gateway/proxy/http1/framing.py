"""The rules of a head that strict llhttp leaves to its user: who is meant, how the body is delimited. Pure.

Sources: RFC 9112 §§3.2, 6.1, 6.3; RFC 9110 §10.1.1.
"""

import re
from enum import Enum
from functools import lru_cache
from typing import Any

from gateway.core.errors import InvalidRequest, MethodNotAllowed
from gateway.proxy.http1.errors import AnswerBroken, CodingNotSupported, ExpectationFailed
from gateway.proxy.http1.headers import Fields, Headers, survey

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#@:][^/?#@]*)(|[/?].*)", re.IGNORECASE)

# A chunk may carry as little as one byte, in six of the wire; beyond that it is extensions and trailers.
_WIRE_BYTES_PER_BODY_BYTE = 16


# Fields that stand once or not at all (RFC 9110 §5.3); of two, nobody can tell which was meant.
_SINGLE = frozenset(
    {
        b"content-length",
        b"content-location",
        b"content-range",
        b"content-type",
        b"etag",
        b"host",
        b"max-forwards",
        b"server",
        b"transfer-encoding",
        b"user-agent",
    }
)

# What an upstream says of how long it keeps an idle connection: the first of its parameters, or a later one.
_IDLE_SAID = re.compile(rb"(?:^|[,; \t])timeout=([0-9]{1,6})(?![0-9])", re.IGNORECASE)

# llhttp lets any byte but the line's end stand in a reason phrase.
_NOT_IN_REASON = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class RequestHead:
    """A valid head. Requests share it whose heads are the same bytes, but for their own length.

    `target` is as received; of an absolute one, the part that an origin gets.
    """

    __slots__ = (
        "expects_continue",
        "fields",
        "headers",
        "is_http10",
        "keep_alive",
        "length",
        "method",
        "notes",
        "path",
        "target",
        "travelling",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        fields: Fields,
        travelling: Headers,
        length: int | None,
        *,
        is_http10: bool,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        self.method = method
        self.target = target
        self.path = target.partition(b"?")[0]
        self.headers = headers
        self.fields = fields  # lower-case name → first value
        self.travelling = travelling  # the headers that are not this connection's alone
        self.length = length  # that of the first of those requests; None if chunked
        self.is_http10 = is_http10
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self.notes: dict[str, Any] = {}  # what handlers derive from this head alone, so that it is derived once


class Delimited(Enum):
    """Where an answer's body ends."""

    BY_HEAD = 1  # there is none
    BY_FRAMING = 2
    BY_CLOSE = 3


def judge(version: str, method: bytes, target: bytes, headers: Headers, *, keep_alive: bool) -> RequestHead:
    """Judge a head that llhttp has accepted; raises the `GatewayError` that refuses it."""
    if method == b"CONNECT":
        raise MethodNotAllowed("This is not a forward proxy.")
    fields, travelling = survey(headers)
    _check_host(version, fields)
    coding = fields.get(b"transfer-encoding")
    length: int | None
    if coding is not None:
        if version == "1.0":
            raise InvalidRequest("Transfer-Encoding is not part of HTTP/1.0.")
        if coding.strip().lower() != b"chunked":
            raise CodingNotSupported
        length = None
    else:
        length = int(fields.pop(b"content-length", 0))  # each request has its own
    if len(fields) != len(headers):
        check_single([name for name, _ in headers])
    expectation = fields.get(b"expect")
    if expectation is not None and expectation.strip().lower() != b"100-continue":
        raise ExpectationFailed
    if target[0] != 47 or b"#" in target:
        target = _origin_form(method, target)
    return RequestHead(
        method,
        target,
        headers,
        fields,
        travelling,
        length,
        is_http10=version == "1.0",
        keep_alive=keep_alive,
        expects_continue=expectation is not None and version == "1.1",
    )


def check_single(names: list[bytes]) -> None:
    """Raises `InvalidRequest` if a field is named twice of which there can be but one."""
    single = [name for name in map(bytes.lower, names) if name in _SINGLE]
    if len(single) != len(set(single)):
        twice = next(name for name in single if single.count(name) > 1)
        raise InvalidRequest(f"There is more than one {twice.decode().title()} header.")


def check_trailers(names: list[bytes]) -> None:
    """Raises `InvalidRequest` for trailers that could be read as part of a head."""
    if any(is_framing(name) for name in names):
        raise InvalidRequest("A trailer says how long the body is.")
    check_single(names)


def is_framing(name: bytes) -> bool:
    """Whether a field says how long a body is, which a trailer must not (RFC 9110 §6.5.1)."""
    return name.lower() in (b"transfer-encoding", b"content-length")


def _check_host(version: str, fields: Fields) -> None:
    host = fields.get(b"host")
    if host is None:
        if version == "1.1":
            raise InvalidRequest("The Host header is missing.")
    elif not _is_host(host):
        raise InvalidRequest("The Host header is malformed.")


@lru_cache(maxsize=256)
def _is_host(host: bytes) -> bool:
    return _HOST.fullmatch(host.strip(b" \t")) is not None


def _origin_form(method: bytes, target: bytes) -> bytes:
    """Return a target that does not begin with a slash as the origin would get it.

    >>> _origin_form(b"GET", b"http://gateway/v1/models?"), _origin_form(b"GET", b"http://gateway?a")
    (b'/v1/models?', b'/?a')
    """
    if b"#" in target:
        raise InvalidRequest("The request target holds a fragment.")
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not _is_host(absolute[1]):
        raise InvalidRequest("The request target is malformed.")
    rest = absolute[2]
    return rest if rest.startswith(b"/") else b"/" + rest


def is_wasteful(wire_bytes: int, body_bytes: int, barren_bytes: int, head_bytes_max: int) -> bool:
    """Whether a chunked body consists of something other than its content: endless extensions or trailers.

    `barren_bytes`: so many came since the last byte of its content. A parser keeps a name until it is complete.
    """
    return barren_bytes > head_bytes_max or wire_bytes > head_bytes_max + _WIRE_BYTES_PER_BODY_BYTE * body_bytes


def _is_repeated(name: bytes, headers: Headers) -> bool:
    return sum(field[0].lower() == name for field in headers) > 1


def is_http(heads: bytes) -> bool:
    """Whether what an upstream sent, heads of interim answers and then a final one, is HTTP/1: llhttp reads RTSP, too.

    >>> is_http(b"HTTP/1.0 200 OK"), is_http(b"RTSP/1.0 200 OK"), is_http(b"HTTP/1.1 103 H\\r\\n\\r\\nICE/1.0 200 OK")
    (True, False, False)
    """
    heads = heads.lstrip(b"\r\n")
    while heads:
        if heads[:7] != b"HTTP/1."[: len(heads)]:
            return False
        if heads[9:10] != b"1":
            return True
        heads = heads.partition(b"\r\n\r\n")[2]
    return True


def check_reason(reason: bytes) -> None:
    if _NOT_IN_REASON.search(reason):
        raise AnswerBroken("malformed: a control character in the reason phrase")


def check_interim(headers: Headers) -> None:
    """A 1xx has no body, whatever it says (RFC 9112 §6.3); llhttp would read one."""
    if any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers):
        raise AnswerBroken("malformed: an interim answer with a body")


def delimited(method: bytes, status: int, version: str, headers: Headers, fields: Fields) -> Delimited:
    """Judge the head of a final answer; raises AnswerBroken if it cannot be one."""
    if version not in ("1.1", "1.0") or status < 200:
        raise AnswerBroken(f"an answer of HTTP/{version} with status {status:03d}")
    coding = fields.get(b"transfer-encoding")
    if coding is not None and (coding.strip().lower() != b"chunked" or _is_repeated(b"transfer-encoding", headers)):
        raise AnswerBroken(f"an answer in transfer coding {coding[:64]!r}, which was not asked for")
    if method == b"HEAD" or status in (204, 304):
        return Delimited.BY_HEAD
    return Delimited.BY_FRAMING if coding is not None or b"content-length" in fields else Delimited.BY_CLOSE


def idle_said_s(keep_alive: bytes) -> int | None:
    """How long an upstream keeps an idle connection, by its Keep-Alive field.

    >>> idle_said_s(b"timeout=5, max=100"), idle_said_s(b"max=100"), idle_said_s(b"timeout=x")
    (5, None, None)
    """
    said = _IDLE_SAID.search(keep_alive)
    return None if said is None else int(said[1])
