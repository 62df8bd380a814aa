"""The operations API, built out of configuration and stores: the same in every process that has them."""

from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from gateway import __version__
from gateway.app.breakers import breaker_store
from gateway.app.brownouts import priced_models, reroute_of
from gateway.app.identity import token_operators
from gateway.app.stores import Stores
from gateway.config import Config
from gateway.web.openapi import document_route
from gateway.web.operations import Operation, routes_of
from gateway.web.ops.access import OperatorAccess, by_key_or_token, told_refusals
from gateway.web.ops.accounts import AccountsApi
from gateway.web.ops.caps import CapsApi
from gateway.web.ops.controls import ControlsApi
from gateway.web.ops.keys import KeysApi
from gateway.web.ops.models import BrownoutDefaults, ModelsApi

if TYPE_CHECKING:
    from gateway.app.stripe import StripeParts


def operations_of(config: Config, stores: Stores, stripe: "StripeParts | None" = None) -> list[Operation]:
    access = OperatorAccess(by_key_or_token(stores.ops_keys, token_operators(config)))
    accounts = AccountsApi(access, stores.accounts, stores.account_desk, stores.reviews, stores.corrections)
    defaults = BrownoutDefaults(
        config.brownout.shed_percent,
        config.brownout.output_tokens,
        reroute_of=partial(reroute_of, config),
        is_sold=lambda models: bool(priced_models(config, models)),
    )
    models = ModelsApi(access, stores.brownouts, breaker_store(config, stores), defaults)
    return told_refusals(
        [
            *ControlsApi(access, stores.flags, stores.audit_log).operations(),
            *accounts.operations(),
            *CapsApi(access, stores.caps).operations(),
            *models.operations(),
            *KeysApi(access, stores.ops_keys).operations(),
            *(_refunds(access, stripe) if stripe is not None else []),
        ]
    )


def _refunds(access: OperatorAccess, stripe: "StripeParts") -> list[Operation]:
    from gateway.web.ops.refunds import RefundsApi  # only where something is sold is the SDK, which is large, imported

    return RefundsApi(access, stripe.refunds).operations()


def ops_routes(config: Config, stores: Stores, stripe: "StripeParts | None" = None) -> list[web.AbstractRouteDef]:
    """Every path below /ops, and their OpenAPI document. Without Stripe nothing is refunded."""
    operations = operations_of(config, stores, stripe)
    document = document_route("/ops/openapi.json", operations, title="Tollgate operations", version=__version__)
    return [*routes_of(operations), document]
