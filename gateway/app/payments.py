"""Whether anything is sold here. Without a key nothing is, and the SDK, which is large, is not even imported."""

from typing import TYPE_CHECKING

from gateway.app.stores import Stores
from gateway.config import Config

if TYPE_CHECKING:
    from gateway.app.stripe import StripeParts


def stripe_parts(config: Config, stores: Stores) -> "StripeParts | None":
    if not config.stripe_key:
        return None
    from gateway.app.stripe import StripeParts

    return StripeParts(config, stores)
