"""How a browser, which cannot set Authorization on a WebSocket, offers its key: among the subprotocols. Pure.

Source: OpenAI's guide to the Realtime API with WebSockets, and its `openai` package for JavaScript.
"""

import re

from gateway.proxy.http1.headers import Headers

_NAME = b"sec-websocket-protocol"
_KEY = re.compile(rb"[ \t]*openai-insecure-api-key\.([^ \t]*)[ \t]*")


def offered_keys(headers: Headers) -> list[bytes]:
    """The keys among the subprotocols, as Authorization headers would carry them.

    >>> offered_keys([(b"Sec-WebSocket-Protocol", b"realtime, openai-insecure-api-key.sk-tg-x")])
    [b'Bearer sk-tg-x']
    """
    offers = [offer for name, value in headers if name.lower() == _NAME for offer in value.split(b",")]
    return [b"Bearer " + found[1] for offer in offers if (found := _KEY.fullmatch(offer))]


def without_keys(headers: Headers) -> Headers:
    """Take keys out of the subprotocols; a field that holds none stays as it is, byte for byte.

    >>> without_keys([(b"Sec-WebSocket-Protocol", b"realtime, openai-insecure-api-key.sk-tg-x, openai-project.p")])
    [(b'Sec-WebSocket-Protocol', b'realtime, openai-project.p')]
    """
    kept: Headers = []
    for name, value in headers:
        offers = value.split(b",") if name.lower() == _NAME else []
        others = [offer for offer in offers if not _KEY.fullmatch(offer)]
        if len(others) == len(offers):
            kept.append((name, value))
        elif others:
            kept.append((name, b",".join(others).strip()))
    return kept
