import gzip
import itertools
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls.encodings import (
    CODINGS_MAX,
    INFLATED_BYTES_MIN,
    STEP_BYTES_MAX,
    CorruptEncoding,
    UnknownEncoding,
    decoder,
)


def raw_deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(data) + squeeze.flush()


CODINGS: dict[str, list[Callable[[bytes], bytes]]] = {
    "gzip": [gzip.compress],
    "deflate": [zlib.compress, raw_deflate],
    "br": [partial(brotli.compress, quality=4)],
    "zstd": [zstandard.ZstdCompressor().compress],
}


@given(st.binary(max_size=2000), st.lists(st.integers(0, 3000), max_size=10))
@pytest.mark.parametrize("coding", CODINGS)
def test_any_split_decodes_to_the_same(coding: str, data: bytes, cuts: list[int]) -> None:
    for encode in CODINGS[coding]:
        packed = encode(data)
        places = sorted({0, len(packed), *(at % (len(packed) + 1) for at in cuts)})
        decode = decoder(coding)
        assert decode is not None
        assert b"".join(decode(packed[a:b]) for a, b in itertools.pairwise(places)) == data


def test_codings_stack_in_the_order_they_were_applied() -> None:
    decode = decoder("gzip, br")
    assert decode is not None
    assert decode(brotli.compress(gzip.compress(b"data"))) == b"data"


def test_an_unknown_coding_is_named() -> None:
    with pytest.raises(UnknownEncoding, match="compress"):
        decoder("compress")


@pytest.mark.parametrize("coding", CODINGS)
def test_corrupt_bytes_are_one_error(coding: str) -> None:
    decode = decoder(coding)
    assert decode is not None
    with pytest.raises(CorruptEncoding):
        decode(b"\x08not compressed at all, by anything")


@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress)])
def test_members_follow_each_other(coding: str, encode: Callable[[bytes], bytes]) -> None:
    decode = decoder(coding)
    assert decode is not None
    assert decode(encode(b"one") + encode(b"two")) + decode(encode(b"three")) == b"onetwothree"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_what_inflates_beyond_all_measure_is_not_inflated(coding: str) -> None:
    decode = decoder(coding)
    assert decode is not None
    with pytest.raises(CorruptEncoding, match="inflates"):
        decode(CODINGS[coding][0](bytes(5 * INFLATED_BYTES_MIN)))


@pytest.mark.parametrize("coding", ["gzip, gzip", "deflate, deflate", "br", "zstd", "br, gzip"])
def test_what_inflates_beyond_all_measure_is_noticed_before_it_fills_the_memory(coding: str) -> None:
    packed = bytes(8 * STEP_BYTES_MAX)
    for name in coding.split(", "):
        packed = CODINGS[name][0](packed)
    decode = decoder(coding)
    assert decode is not None
    tracemalloc.start()
    try:
        with pytest.raises(CorruptEncoding, match="inflates"):
            decode(packed)
        assert tracemalloc.get_traced_memory()[1] < 4 * STEP_BYTES_MAX
    finally:
        tracemalloc.stop()


def test_many_members_within_another_coding_are_bounded_together() -> None:
    members = gzip.compress(bytes(STEP_BYTES_MAX - 1)) * 8
    decode = decoder("gzip, br")
    assert decode is not None
    tracemalloc.start()
    try:
        with pytest.raises(CorruptEncoding, match="inflates"):
            decode(brotli.compress(members, quality=4))
        assert tracemalloc.get_traced_memory()[1] < 4 * STEP_BYTES_MAX
    finally:
        tracemalloc.stop()


def test_more_codings_than_anybody_uses_are_not_undone() -> None:
    decoder(", ".join(["gzip"] * CODINGS_MAX))
    with pytest.raises(UnknownEncoding):
        decoder(", ".join(["gzip"] * (CODINGS_MAX + 1)))
