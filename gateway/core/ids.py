"""Ids: request ids, UUIDv7 so that they sort by time; and UUIDs as text that may be none. Pure: time is an argument."""

from uuid import UUID


def uuid7(now_ms: int, random: bytes) -> str:
    """A UUID version 7 (RFC 9562 §5.7) from Unix milliseconds and 10 random bytes.

    >>> uuid7(1_700_000_000_000, bytes(10))
    '018bcfe5-6800-7000-8000-000000000000'
    """
    text, tail = f"{now_ms & (1 << 48) - 1:012x}", random.hex()
    variant = "89ab"[random[9] & 3]
    return f"{text[:8]}-{text[8:]}-7{tail[:3]}-{variant}{tail[3:6]}-{tail[6:18]}"


def uuid_of(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
