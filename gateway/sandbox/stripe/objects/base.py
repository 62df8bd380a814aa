"""What all objects have in common."""

from typing import Any

from msgspec import Struct

Json = dict[str, Any]
Metadata = dict[str, str]


class Identified(Struct, frozen=True, kw_only=True):
    """What all have in common."""

    id: str


class Resource(Identified, frozen=True, kw_only=True):
    created: int


class Live(Resource, frozen=True, kw_only=True):
    livemode: bool = False


def no_address() -> Json:
    return dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))


def no_billing_details() -> Json:
    return {"address": no_address(), "email": None, "name": None, "phone": None, "tax_id": None}
