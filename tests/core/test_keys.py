"""Keys: their shape is recognised without a lookup, and a mistyped one is refused."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.access.keys import hash_key, is_key, make_key, secret_of

randomness = st.binary(min_size=32, max_size=32)


@given(randomness)
def test_every_key_that_is_made_is_recognised(random: bytes) -> None:
    key = make_key(random)
    assert key.startswith("sk-tg-")
    assert len(key) == 6 + 43 + 6
    assert is_key(key.encode())


@given(randomness, st.integers(6, 54), st.sampled_from(b"ABCxyz019-_"))
def test_one_wrong_character_is_refused(random: bytes, place: int, letter: int) -> None:
    key = bytearray(make_key(random).encode())
    is_changed = key[place] != letter
    key[place] = letter
    assert is_key(bytes(key)) is not is_changed


@given(st.binary(max_size=80))
def test_any_bytes_are_judged_without_an_error(junk: bytes) -> None:
    assert not is_key(junk)
    assert secret_of(junk) in (None, junk[7:].strip())


@given(randomness, st.integers(0, 54))
def test_a_truncated_key_is_refused(random: bytes, length: int) -> None:
    assert not is_key(make_key(random).encode()[:length])


@pytest.mark.parametrize(
    ("header", "secret"),
    [
        (b"Bearer sk-tg-1", b"sk-tg-1"),
        (b"bearer  sk-tg-1 ", b"sk-tg-1"),
        (b"Bearer ", b""),
        (b"Bearer", None),
        (b"Basic sk-tg-1", None),
        (b"sk-tg-1", None),
        (b"", None),
        (None, None),
        (b"Bearer " + b"x" * 600, None),
    ],
)
def test_only_a_bearer_header_of_bounded_length_holds_a_secret(header: bytes | None, secret: bytes | None) -> None:
    assert secret_of(header) == secret


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_is_made_of_32_random_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        make_key(bytes(length))


def test_a_key_is_stored_as_its_sha256() -> None:
    assert hash_key(b"sk-tg-1") == hashlib.sha256(b"sk-tg-1").digest()
