"""Request ids: UUIDv7, so that they sort by time. Time and randomness are arguments."""


def uuid7(now_ms: int, random: bytes) -> str:
    """A UUID version 7 (RFC 9562 §5.7) from Unix milliseconds and 10 random bytes.

    >>> uuid7(1_700_000_000_000, bytes(10))
    '018bcfe5-6800-7000-8000-000000000000'
    """
    tail = int.from_bytes(random, "big")
    value = (now_ms & (1 << 48) - 1) << 80 | 0x7 << 76 | (tail >> 62 & 0xFFF) << 64 | 0b10 << 62 | tail & (1 << 62) - 1
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
