"""`/api/recharge`: an account's automatic recharge, over HTTP. Off until somebody turns it on."""

from typing import Any

import msgspec
from aiohttp import web

from gateway.adapters.postgres.recharges import Recharge, Recharges
from gateway.core.accounting.recharge import Terms
from gateway.core.errors import FeatureNotAllowed, InvalidRequest
from gateway.core.money import UCR_PER_CREDIT, format_credits
from gateway.core.pricing.packages import Packages
from gateway.web.access import Access, signature_of
from gateway.web.api.purchases import told_outages
from gateway.web.operations import read_body

THRESHOLD_CREDITS_MAX = 1_000_000_000
MONTH_CENTS_MAX = 100_000_000


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it is said each time, so that nothing is charged that nobody has just agreed to."""

    on: bool
    threshold_credits: int = 0
    amount_cents: int = 0
    month_cents_max: int = 0


class RechargeRoutes:
    def __init__(self, access: Access, recharges: Recharges, packages: Packages, *, is_taxed: bool) -> None:
        self._access = access
        self._is_taxed = is_taxed
        self._recharges = recharges
        self._packages = packages

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/api/recharge", told_outages(self.show)),
            web.put("/api/recharge", told_outages(self.set)),
        ]

    async def show(self, request: web.Request) -> web.Response:
        caller = await self._access.reading(request)
        return web.json_response(shown(await self._recharges.find(caller.account_id)))

    async def set(self, request: web.Request) -> web.Response:
        caller = await self._access.buying(request)
        wanted = read_body(await request.read(), Wanted)
        if wanted.on:
            terms = terms_of(wanted, self._packages, is_taxed=self._is_taxed)
            await self._recharges.set(caller.account_id, terms, signature_of(caller))
        else:
            await self._recharges.turn_off(caller.account_id, signature_of(caller))
        return web.json_response(shown(await self._recharges.find(caller.account_id)))


def terms_of(wanted: Wanted, packages: Packages, *, is_taxed: bool) -> Terms:
    """What is agreed to; raises `InvalidRequest`, naming the field and its bounds, or `FeatureNotAllowed`."""
    if is_taxed:
        raise FeatureNotAllowed("Taxes are computed on the payment page, so no card is charged without it here.")
    lowest, highest = packages.custom_cents_min, packages.custom_cents_max
    if not lowest <= wanted.amount_cents <= highest:
        raise InvalidRequest(f"amount_cents is {lowest} to {highest}.", param="amount_cents")
    if not wanted.amount_cents <= wanted.month_cents_max <= MONTH_CENTS_MAX:
        raise InvalidRequest(
            f"month_cents_max is amount_cents to {MONTH_CENTS_MAX}: at least one charge a month.",
            param="month_cents_max",
        )
    if not 0 < wanted.threshold_credits <= THRESHOLD_CREDITS_MAX:
        raise InvalidRequest(f"threshold_credits is 1 to {THRESHOLD_CREDITS_MAX}.", param="threshold_credits")
    return Terms(wanted.threshold_credits * UCR_PER_CREDIT, wanted.amount_cents, wanted.month_cents_max)


def shown(found: Recharge | None) -> dict[str, Any]:
    if found is None:
        return {"on": False}
    return {
        "on": found.is_on,
        "threshold_credits": format_credits(found.terms.threshold),
        "amount_cents": found.terms.amount_cents,
        "month_cents_max": found.terms.month_cents_max,
        "paused": found.paused or None,
        "card": found.card or None,
        "needs_card": found.is_on and not found.has_card,
        "checkout_url": found.checkout_url or None,
    }
