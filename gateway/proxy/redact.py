"""The upstream's key never comes back, not even if upstream echoes it: it is blanked in whatever passes uncompressed.

What replaces it is as long, so that no declared length becomes a lie.
"""

_LINE_FEED = 10


class Redactor:
    """Blanks one secret in one stream of bytes, also where it is split over pieces. The secret holds no line feed."""

    __slots__ = ("_blank", "_kept", "_secret")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._blank = b"*" * len(secret)
        self._kept = b""  # what may be the beginning of the secret

    def feed(self, data: bytes) -> bytes:
        """Return what may pass by now.

        >>> redactor = Redactor(b"secret")
        >>> redactor.feed(b"a secret, a sec"), redactor.feed(b"ret, sec"), redactor.end()
        (b'a ******, a ', b'******, ', b'sec')
        """
        if not self._secret or not data:
            return data
        if self._kept:
            data, self._kept = self._kept + data, b""
        if self._secret in data:
            data = data.replace(self._secret, self._blank)
        if data[-1] == _LINE_FEED:  # events end so: nothing of them is ever kept
            return data
        kept_length = self._beginning_at_the_end(data)
        if kept_length:
            self._kept = data[-kept_length:]
            data = data[:-kept_length]
        return data

    def end(self) -> bytes:
        """What was kept turned out to be no secret."""
        kept, self._kept = self._kept, b""
        return kept

    def _beginning_at_the_end(self, data: bytes) -> int:
        secret = self._secret
        at = data.find(secret[:1], max(0, len(data) - len(secret) + 1))
        while at >= 0:
            if secret.startswith(data[at:]):
                return len(data) - at
            at = data.find(secret[:1], at + 1)
        return 0


def redacted(secret: bytes, data: bytes) -> bytes:
    """Blank `secret` in `data`.

    >>> redacted(b"secret", b"a secret"), redacted(b"", b"a secret")
    (b'a ******', b'a secret')
    """
    return data.replace(secret, b"*" * len(secret)) if secret else data
