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
    steps = [_step(name.strip().lower()) for name in content_encoding.split(",") if name.strip()]
    chain = [step for step in reversed(steps) if step is not None]
    if not chain:
        return None

    def decode(data: bytes) -> bytes:
        out: list[bytes] = []
        size = 0
        for start in range(0, len(data), SLICE_BYTES):
            piece = data[start : start + SLICE_BYTES]
            try:
                for step in chain:
                    piece = step(piece)
            except (zlib.error, brotli.error, zstandard.ZstdError, EOFError) as error:
                raise CorruptEncoding(str(error)) from error
            out.append(piece)
            size += len(piece)
            if size > max(INFLATED_BYTES_MIN, INFLATION_MAX * len(data)):
                raise CorruptEncoding("the answer inflates beyond all measure")
        return b"".join(out)

    return decode


def _step(name: str) -> Decode | None:
    match name:
        case "identity":
            return None
        case "gzip" | "x-gzip":
            return _Gzip().decompress
        case "deflate":
            return _Deflate().decompress
        case "br":
            process: Decode = brotli.Decompressor().process
            return process
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress
        case _:
            raise UnknownEncoding(f"content coding {name!r}")


class _Gzip:
    """A gzip stream is any number of members, one after the other (RFC 1952 §2.2)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)

    def decompress(self, data: bytes) -> bytes:
        out = self._member.decompress(data)
        while self._member.eof and self._member.unused_data:
            rest = self._member.unused_data
            self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            out += self._member.decompress(rest)
        return out


class _Deflate:
    """HTTP's "deflate" is zlib (RFC 9110 §8.4.1.2), but some servers send the raw format: the first byte tells."""

    def __init__(self) -> None:
        self._inner: Decode | None = None

    def decompress(self, data: bytes) -> bytes:
        if self._inner is None:
            if not data:
                return b""
            is_zlib = data[0] & 0x0F == 8
            self._inner = zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS).decompress
        return self._inner(data)
