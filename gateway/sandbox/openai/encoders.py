"""Content encodings of an answer; each is flushed after every event, so that a compressed stream still flows."""

import zlib
from collections.abc import Callable
from typing import Protocol, TypeAlias

import brotli
import zstandard


class Encoder(Protocol):
    """Compresses one answer, piece by piece."""

    def piece(self, data: bytes) -> bytes:
        """Compress `data` and flush it, so that what is returned can be read at once."""

    def end(self) -> bytes:
        """The bytes that end the compressed answer."""


class Identity:
    """No compression."""

    def piece(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


class Zlib:
    """gzip (`window_bits` 31) and deflate in its zlib form (15)."""

    def __init__(self, window_bits: int) -> None:
        self._compressor = zlib.compressobj(wbits=window_bits)

    def piece(self, data: bytes) -> bytes:
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._compressor.flush()


class Brotli:
    def __init__(self) -> None:
        self._compressor = brotli.Compressor(quality=4)

    def piece(self, data: bytes) -> bytes:
        compressed: bytes = self._compressor.process(data) + self._compressor.flush()
        return compressed

    def end(self) -> bytes:
        compressed: bytes = self._compressor.finish()
        return compressed


class Zstd:
    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor().compressobj()

    def piece(self, data: bytes) -> bytes:
        return self._compressor.compress(data) + self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def end(self) -> bytes:
        return self._compressor.flush()


_MakeEncoder: TypeAlias = Callable[[], Encoder]
_ENCODERS: dict[str | None, _MakeEncoder] = {
    None: Identity,
    "gzip": lambda: Zlib(31),
    "deflate": lambda: Zlib(15),
    "br": Brotli,
    "zstd": Zstd,
}


def make_encoder(encoding: str | None) -> Encoder:
    """The encoder of a content encoding; None compresses nothing."""
    return _ENCODERS[encoding]()
