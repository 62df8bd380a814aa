"""The control plane on the public listener, built out of the configuration: every path of /api, /billing, /webhooks."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web

from gateway import __version__
from gateway.adapters.postgres.callers import CallerDirectory, KeysAndTokens
from gateway.adapters.postgres.idempotency import Idempotency
from gateway.adapters.postgres.ledger_pages import LedgerPages
from gateway.adapters.postgres.usage_pages import UsagePages
from gateway.adapters.postgres.usage_reports import UsageReports
from gateway.app.sources import new_request_id, now, now_ms
from gateway.app.stores import Stores
from gateway.config import Config
from gateway.core.guard.policy import Controls
from gateway.core.pricing.schedule import Schedule
from gateway.proxy.reporting import Reporting
from gateway.web.access import Access
from gateway.web.api.account import AccountApi
from gateway.web.api.alerts import AlertsApi
from gateway.web.api.keys import KeysApi
from gateway.web.api.ledger import LedgerApi
from gateway.web.api.members import MembersApi
from gateway.web.api.reports import ReportsApi
from gateway.web.api.statements import StatementRoutes
from gateway.web.api.status import StatusRoute
from gateway.web.api.usage import UsageApi
from gateway.web.described import DESCRIBED
from gateway.web.openapi import document_route
from gateway.web.operations import routes_of
from gateway.web.public import public_app, public_runner

if TYPE_CHECKING:
    from gateway.app.stripe import StripeParts


def control_plane(
    config: Config,
    stores: Stores,
    callers: CallerDirectory | KeysAndTokens,
    stripe: "StripeParts | None",
    controls: Callable[[], Controls],
    reporting: Reporting,
    cards: Schedule,
    *,
    is_ready: Callable[[], bool],
) -> web.AppRunner:
    access = Access(callers.authenticate, config.edge.trusted_proxies)
    idempotency = Idempotency(stores.pool, new_id=new_request_id)
    ledger = LedgerApi(access, LedgerPages(stores.pool), now=now)
    operations = [
        *AccountApi(access, stores.accounts, stores.keys, stores.members, stores.live_balance).operations(),
        *UsageApi(access, UsagePages(stores.pool), now=now).operations(),
        *ledger.operations(),
        *AlertsApi(access, stores.alerts).operations(),
        *KeysApi(access, stores.keys, stores.members, idempotency).operations(),
        *MembersApi(access, stores.members, idempotency).operations(),
        *ReportsApi(
            access,
            UsageReports(stores.pool),
            reporting,
            lambda: cards.at(now_ms()),
            auto_tier=config.estimate.auto_service_tier,
            trusted_accounts=[str(each) for each in config.reports.trusted_accounts],
        ).operations(),
        *(stripe.operations(access, controls) if stripe else ()),
    ]
    app = public_app(
        body_bytes_max=config.edge.control_body_bytes_max,
        routes=[
            *StatusRoute(callers.authenticate, is_ready=is_ready, controls=controls).routes(),
            *routes_of(operations),
            *ledger.routes(),
            *StatementRoutes(access, stores.statements).routes(),
            *(stripe.webhook_routes() if stripe else ()),
            document_route("/api/openapi.json", [*DESCRIBED, *operations], title="Tollgate", version=__version__),
        ],
        origins=config.edge.cors_origins,
    )
    return public_runner(app)
