"""Bytes of one client connection in, requests out: no I/O, no clock.

llhttp parses, strictly and without a lenient flag; what it leaves open is judged by `framing` and by the request line's
exact bytes. Upgrades are not taken: such a request is read as a plain one.
"""

from collections.abc import Callable

import httptools

from gateway.core.errors import GatewayError, HeadersTooLarge, InvalidRequest
from gateway.proxy.http1.errors import VersionNotSupported
from gateway.proxy.http1.framing import RequestHead, check_trailers, is_wasteful, judge
from gateway.proxy.http1.headers import Headers
from gateway.proxy.http1.known import KnownHeads, body_length
from gateway.proxy.http1.limits import Limits
from gateway.proxy.http1.request import Request

_OTHER_VERSION = ("Invalid HTTP version", "Pause on PRI/Upgrade")


class _Stop(Exception):
    """Parse no further."""


class RequestReader:
    """Appends each request to `requests` when its head is complete; `arriving` is the one whose body is not.

    `closed`: no further request will be read, because the last one said so or there were too many.
    """

    __slots__ = (
        "_barren_bytes",
        "_between",
        "_buffer",
        "_end",
        "_headers",
        "_known",
        "_limits",
        "_muted",
        "_new_request",
        "_next",
        "_parser",
        "_pieces",
        "_refusal",
        "_start",
        "_target",
        "_trailers",
        "_upgrading",
        "_wire_bytes",
        "arriving",
        "closed",
        "in_head",
        "on_body",
        "requests",
    )

    def __init__(
        self, limits: Limits, known: KnownHeads, new_request: Callable[[RequestHead, int | None], Request]
    ) -> None:
        self.requests: list[Request] = []
        self.arriving: Request | None = None
        self.closed = False
        self.in_head = False
        self._limits = limits
        self._known = known
        self._new_request = new_request
        self._target = b""
        self._headers: Headers = []
        self._trailers: list[bytes] = []  # their names
        self._buffer = b""  # what is being fed, behind what came before of the same head
        self._between = b""  # line ends behind the last request, which llhttp passes over
        self._end = b""  # the last bytes of a chunked body
        self._start = 0  # where this head begins in it
        self._next = 0  # where the next one may begin; negative: behind chunks, so nobody knows
        self._refusal: GatewayError | None = None
        self._muted = False
        self._upgrading = False
        self._wire_bytes = 0  # of a chunked body
        self._barren_bytes = 0  # of those, since the last of its content
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # no Python frame for a piece
        self._parser: httptools.HttpRequestParser | None = None  # many a connection sends known heads only

    def recognise(self, data: bytes) -> Request | None:
        """The request that `data` is, if it is exactly one, whole, with a head that was judged before."""
        if self.in_head or self.arriving is not None or self.requests or self.closed or self._between:
            return None
        found = body_length(data)
        if found is None:
            return None
        start, stop, end, length = found
        if len(data) - end != length:
            return None
        head = self._known.get(data[:start] + data[stop:end])
        if head is None:
            return None
        request = self._new_request(head, length)
        if length:
            request.receive(data[end:])
        request.complete = True
        return request

    def feed(self, data: bytes) -> None:
        """Read on; raises the `GatewayError` that refuses what is malformed: of `arriving`, else of a new request."""
        if self.closed:
            return
        arriving = self.arriving
        if self.in_head:
            self._buffer = self._buffer[self._start :] + data
            self._start = 0
        else:
            self._buffer, self._between = self._between + data, b""
            if arriving is None:
                self._next = 0
            elif arriving.length is None:
                self._next = -1
            else:
                self._next = arriving.length - arriving.received_bytes
        rest = None
        parser = self._parser = self._parser or httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self._stop(error)
            return
        if self.in_head:
            head_bytes = len(self._buffer) - self._start
            # In short lines, fields take thirty times the bytes in them.
            if head_bytes > self._limits.head_bytes_max or len(self._headers) > self._limits.header_count_max:
                self.closed = True
                self._buffer, self._headers = b"", []
                raise HeadersTooLarge
            return
        if self.arriving is None and rest is None:
            self._keep_line_ends(data)
        self._buffer = b""
        if rest is not None:
            self._read_plainly(rest)
        elif self.arriving is not None:
            self._hand_over(self.arriving, data)

    def _hand_over(self, request: Request, data: bytes) -> None:
        pieces = self._pieces
        self._barren_bytes = 0 if pieces else self._barren_bytes + len(data)
        if pieces:
            request.receive(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            pieces.clear()
        if request.length is None:
            self._end = (self._end + data)[-4:]
            self._wire_bytes += len(data)
            head_bytes_max = self._limits.head_bytes_max
            if is_wasteful(self._wire_bytes, request.received_bytes, self._barren_bytes, head_bytes_max):
                self.closed = True
                raise InvalidRequest("The chunked body is mostly framing.")

    def _keep_line_ends(self, data: bytes) -> None:
        """Behind a request: what stands before the next one is looked at when that begins."""
        if self._next >= 0:
            self._between = self._buffer[self._next :]
            if len(self._between) > self._limits.head_bytes_max:
                self.closed = True
                raise HeadersTooLarge
        else:
            end, self._end = self._end + data, b""
            if len(end) - len(end.rstrip(b"\r\n")) > len(b"\r\n\r\n"):
                self.closed = True  # as for any byte behind chunks

    def _stop(self, error: httptools.HttpParserError) -> None:
        self._pieces.clear()
        if self.closed:  # llhttp complains of what follows a request that was to be the last
            return
        self.closed = True
        if self._refusal is not None:
            raise self._refusal
        if isinstance(error, httptools.HttpParserCallbackError):
            raise error  # a mistake of ours
        if str(error) in _OTHER_VERSION:
            raise VersionNotSupported from error
        raise InvalidRequest(f"Malformed HTTP: {error}.") from error

    def _read_plainly(self, rest: bytes) -> None:
        """llhttp takes what follows a head with Upgrade for another protocol; have it read as this request's body."""
        request = self.arriving
        assert request is not None
        self._upgrading = False
        self._muted = True
        self._parser = httptools.HttpRequestParser(self)
        framing = b"Transfer-Encoding: chunked" if request.length is None else b"Content-Length: %d" % request.length
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        if rest:
            self.feed(rest)

    # --- llhttp's callbacks --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._muted:
            return
        if self.closed or self._next < 0 or len(self.requests) >= self._limits.pipelined_max:
            # It cannot be told where this one begins, or it is one too many: the client repeats it (RFC 9112 §9.3.2).
            self.closed = True
            raise _Stop
        self.in_head = True
        self._start = self._next

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self._headers.append((name, value))
        elif not self._muted:  # a trailer, which is not passed on
            self._trailers.append(name)

    def on_headers_complete(self) -> None:
        headers, target = self._headers, self._target
        self._headers, self._target, self.in_head = [], b"", False
        if self._muted:
            self._muted = False
            return
        try:
            self._begin(target, headers)
        except GatewayError as refusal:
            self._refusal = refusal  # what llhttp makes of an exception does not lead back to it
            raise

    def _begin(self, target: bytes, headers: Headers) -> None:
        parser = self._parser
        assert parser is not None
        method, version = parser.get_method(), parser.get_http_version()
        if version != "1.1" and version != "1.0":
            raise VersionNotSupported
        self._check_line(method, target, version)
        buffer, start = self._buffer, self._start
        end = buffer.index(b"\r\n\r\n", start) + 4
        if end - start > self._limits.head_bytes_max or len(headers) > self._limits.header_count_max:
            raise HeadersTooLarge
        head = judge(version, method, target, headers, keep_alive=parser.should_keep_alive())
        length = head.length
        self._next = -1 if length is None else end + length
        self._wire_bytes = self._barren_bytes = 0
        self._upgrading = parser.should_upgrade()
        if length and version == "1.1" and not self._upgrading:
            self._known.add(buffer[start:end], head)
        self.arriving = request = self._new_request(head, length)
        self.requests.append(request)

    def _check_line(self, method: bytes, target: bytes, version: str) -> None:
        """llhttp lets pass a second space, RTSP and ICE, and a request line without any version."""
        line = b"%b %b %b" % (method, target, b"HTTP/1.1\r\n" if version == "1.1" else b"HTTP/1.0\r\n")
        buffer = self._buffer
        if not buffer.startswith(line, self._start):
            while buffer.startswith(b"\r\n", self._start):  # empty lines, RFC 9112 §2.2
                self._start += 2
            if not buffer.startswith(line, self._start):
                raise InvalidRequest("The request line is malformed.")

    def on_message_complete(self) -> None:
        request = self.arriving
        if self._upgrading or request is None:
            return
        if self._pieces:
            request.receive(b"".join(self._pieces))
            self._pieces.clear()
        if self._trailers:
            names, self._trailers = self._trailers, []
            try:
                check_trailers(names)
            except GatewayError as refusal:
                self._refusal = refusal
                raise
        self.arriving = None
        if not request.keep_alive:
            self.closed = True
        request.finish()
