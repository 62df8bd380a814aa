"""Callers: the authenticated origin of a request, as everything after authentication reads it."""

import msgspec


class Caller(msgspec.Struct, frozen=True, gc=False):
    """The authenticated origin of one request."""

    account_id: str
    key_id: str
    suspended: bool = False
    on_disconnect: str = "drain"  # or "cancel"
