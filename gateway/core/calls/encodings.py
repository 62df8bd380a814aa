"""Content codings of an answer, undone piece by piece so that a compressed answer is metered all the same."""

import zlib
from collections.abc import Callable

import brotli
import zstandard

Decode = Callable[[bytes], bytes]


# An answer is decoded in slices, so that one that was made to inflate is noticed before it fills the memory.
SLICE_BYTES = 4096
INFLATION_MAX = 200
INFLATED_BYTES_MIN = 4 * 1024 * 1024

# What one coding makes of one slice, about: more than deflate can. Brotli makes 256 MiB of 400 bytes.
STEP_BYTES_MAX = 8 * 1024 * 1024
# Four bytes of zstd are at most a block of 128 KiB: of so many bytes, it makes no more than a step may.
_ZSTD_SLICE_BYTES = 256
# An answer has one, seldom two.
CODINGS_MAX = 4


class UnknownEncoding(ValueError):
    """The answer has a content coding that cannot be read here."""


class CorruptEncoding(ValueError):
    """The bytes are not what their content coding says."""


def decoder(content_encoding: str) -> Decode | None:
    """A function that undoes `content_encoding` incrementally; None for identity.

    Raises `UnknownEncoding`; the function raises `CorruptEncoding`.

    >>> decoder("identity") is None, decoder("gzip")(__import__("gzip").compress(b"data"))
    (True, b'data')
    """
    names = [name.strip().lower() for name in content_encoding.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if len(names) > CODINGS_MAX:
        raise UnknownEncoding(f"{len(names)} content codings")
    chain = [_step(name) for name in reversed(names)]
    if not chain:
        return None

    def decode(data: bytes) -> bytes:
        out: list[bytes] = []
        size = 0
        for start in range(0, len(data), SLICE_BYTES):
            piece = data[start : start + SLICE_BYTES]
            try:
                piece = chain[0](piece)
                for step in chain[1:]:
                    piece = _in_slices(step, piece)
            except (zlib.error, brotli.error, zstandard.ZstdError, EOFError) as error:
                raise CorruptEncoding(str(error)) from error
            out.append(piece)
            size += len(piece)
            if size > max(INFLATED_BYTES_MIN, INFLATION_MAX * len(data)):
                raise _beyond_measure()
        return b"".join(out)

    return decode


def _in_slices(step: Decode, data: bytes) -> bytes:
    """What a further coding makes of what the one before it made, which may be much."""
    out: list[bytes] = []
    size = 0
    for start in range(0, len(data), SLICE_BYTES):
        out.append(step(data[start : start + SLICE_BYTES]))
        size += len(out[-1])
        if size > STEP_BYTES_MAX:
            raise _beyond_measure()
    return b"".join(out)


def _step(name: str) -> Decode:
    match name:
        case "gzip" | "x-gzip":
            return _Gzip().decompress
        case "deflate":
            return _Deflate().decompress
        case "br":
            return _Brotli().decompress
        case "zstd":
            return _Zstd().decompress
        case _:
            raise UnknownEncoding(f"content coding {name!r}")


def _beyond_measure() -> CorruptEncoding:
    return CorruptEncoding("the answer inflates beyond all measure")


class _Gzip:
    """A gzip stream is any number of members, one after the other (RFC 1952 §2.2)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def decompress(self, data: bytes) -> bytes:
        out = _inflate(self._member, data)
        while self._member.eof and self._member.unused_data:
            rest = self._member.unused_data
            self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            out += _inflate(self._member, rest)
        return out


class _Deflate:
    """HTTP's "deflate" is zlib (RFC 9110 §8.4.1.2), but some servers send the raw format: the first byte tells."""

    def __init__(self) -> None:
        self._inner: zlib._Decompress | None = None

    def decompress(self, data: bytes) -> bytes:
        if self._inner is None:
            if not data:
                return b""
            is_zlib = data[0] & 0x0F == 8
            self._inner = zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
        return _inflate(self._inner, data)


def _inflate(member: "zlib._Decompress", data: bytes) -> bytes:
    out = member.decompress(data, STEP_BYTES_MAX)
    if member.unconsumed_tail:
        raise _beyond_measure()
    return out


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    def decompress(self, data: bytes) -> bytes:
        out: bytes = self._stream.process(data, output_buffer_limit=STEP_BYTES_MAX)
        if not self._stream.can_accept_more_data():
            raise _beyond_measure()
        return out


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)

    def decompress(self, data: bytes) -> bytes:
        out: list[bytes] = []
        size = 0
        for start in range(0, len(data), _ZSTD_SLICE_BYTES):
            out.append(self._stream.decompress(data[start : start + _ZSTD_SLICE_BYTES]))
            size += len(out[-1])
            if size > STEP_BYTES_MAX:
                raise _beyond_measure()
        return b"".join(out)
