"""Callers: the authenticated origin of a request, as everything after authentication reads it."""

from collections.abc import Collection
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from gateway.core.access.addresses import Address, Network, is_within
from gateway.core.errors import AddressNotAllowed, EndpointNotAllowed, ModelNotAllowed, ScopeMissing


class Scope(StrEnum):
    """What a key may be used for."""

    CALLS = "calls"  # /v1
    READ = "read"  # what /api and /billing show
    BUY = "buy"  # purchases
    MANAGE = "manage"  # keys and members
    REPORT = "report"  # usage that was made elsewhere


DEFAULT_SCOPES = frozenset({Scope.CALLS.value, Scope.READ.value, Scope.BUY.value})


class Priority(StrEnum):
    """What is of low priority is refused first when capacity is short."""

    NORMAL = "normal"
    LOW = "low"


# Where a caller finds what its key is restricted to.
_TERMS = "GET /api/users/profile shows what it may"

Status = Literal["active", "suspended", "in_review"]


class Restrictions(msgspec.Struct, frozen=True):
    """What keeps a key from some calls. Most keys have none."""

    may_call: bool = True
    models: tuple[str, ...] = ()  # patterns; none: every model
    endpoints: tuple[str, ...] = ()  # patterns of paths; none: every one
    networks: tuple[Network, ...] = ()  # none: everywhere

    def check_request(self, path: str, address: Address | None) -> None:
        """Raises the `GatewayError` that refuses a request to `path` of the OpenAI API from `address`."""
        if not self.may_call:
            raise ScopeMissing(
                "No calls may be made with this: that needs the scope 'calls', and more than a viewer's role."
            )
        self.check_address(address)
        if self.endpoints and not any(fnmatchcase(path, each) for each in self.endpoints):
            raise EndpointNotAllowed(f"This API key may not call {path[:128]}; {_TERMS}.")

    def check_address(self, address: Address | None) -> None:
        """Raises `AddressNotAllowed`."""
        if self.networks and not is_within(address, self.networks):
            raise AddressNotAllowed

    def check_model(self, model: str) -> None:
        """Raises `ModelNotAllowed`."""
        if self.models and not any(fnmatchcase(model, each) for each in self.models):
            raise ModelNotAllowed(f"This API key may not use the model {model[:128]!r}; {_TERMS}.", param="model")


def may_call(scopes: Collection[str], role: str | None) -> bool:
    """Whether calls may be made; a viewer only looks, whatever its key says."""
    return Scope.CALLS in scopes and role != "viewer"


class Caller(msgspec.Struct, frozen=True, gc=False):
    """The authenticated origin of one request."""

    account_id: str
    key_id: str
    status: Status = "active"  # the worst of its account's, member's and key's
    on_disconnect: str = "drain"  # or "cancel"
    member_id: str | None = None
    role: str | None = None  # of the member
    is_barred: bool = False  # the member is suspended, and may not even read
    scopes: frozenset[str] = DEFAULT_SCOPES
    expires_at_ms: int | None = None
    restrictions: Restrictions | None = None
    review: str = ""  # the reference of what put it in review
    plan: str = "default"
    priority: str = "normal"  # of the account; or "low"
    key_priority: str = "normal"  # or "low"; a normal key of a low account is low all the same
    time_zone: str = "UTC"
