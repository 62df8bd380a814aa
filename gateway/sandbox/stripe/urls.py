"""The addresses that customers are sent to."""

from urllib.parse import urlsplit

from gateway.sandbox.stripe.errors import invalid


def checked_url(given: str | None, param: str) -> str | None:
    """`given`, if it is an address on the web or nothing.

    >>> checked_url("https://example.com/done", "success_url")
    'https://example.com/done'
    """
    if given is not None:
        parts = urlsplit(given)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise invalid("Not a valid URL", code="url_invalid", param=param)
    return given
