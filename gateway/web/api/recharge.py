"""`/api/recharge`: an account's automatic recharge, over HTTP. Off until somebody turns it on."""

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from gateway.adapters.postgres.recharges import Recharge, Recharges
from gateway.core.accounting.recharge import Terms
from gateway.core.errors import FeatureNotAllowed, InvalidRequest
from gateway.core.money import UCR_PER_CREDIT, format_credits
from gateway.core.pricing.packages import Packages
from gateway.web.access import Access, signature_of
from gateway.web.operations import Answer, Operation, read_body

THRESHOLD_CREDITS_MAX = 1_000_000_000
MONTH_CENTS_MAX = 100_000_000


class Wanted(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """All of it is said each time, so that nothing is charged that nobody has just agreed to."""

    on: bool
    threshold_credits: int = 0
    amount_cents: int = 0
    month_cents_max: int = 0


class RechargeShown(msgspec.Struct, frozen=True, rename="camel"):
    """An account's automatic recharge; of one that nobody agreed to, nothing but that is told."""

    on: bool
    threshold_credits: str | UnsetType = UNSET
    amount_cents: int | UnsetType = UNSET
    month_cents_max: int | UnsetType = UNSET
    paused: str | UnsetType | None = UNSET
    card: str | UnsetType | None = UNSET
    needs_card: bool | UnsetType = UNSET
    checkout_url: str | UnsetType | None = UNSET


class RechargeApi:
    def __init__(self, access: Access, recharges: Recharges, packages: Packages, *, is_taxed: bool) -> None:
        self._access = access
        self._is_taxed = is_taxed
        self._recharges = recharges
        self._packages = packages

    def operations(self) -> list[Operation]:
        path = "/api/recharge"
        return [
            Operation("GET", path, self.show, "The automatic recharge.", RechargeShown),
            Operation("PUT", path, self.set, "Agree to an automatic recharge, or turn it off.", RechargeShown,
                      takes=Wanted),
        ]  # fmt: skip

    async def show(self, request: web.Request) -> Answer:
        caller = await self._access.reading(request)
        return Answer(shown(await self._recharges.find(caller.account_id)))

    async def set(self, request: web.Request) -> Answer:
        caller = await self._access.buying(request)
        wanted = read_body(await request.read(), Wanted)
        if wanted.on:
            terms = terms_of(wanted, self._packages, is_taxed=self._is_taxed)
            await self._recharges.set(caller.account_id, terms, signature_of(caller))
        else:
            await self._recharges.turn_off(caller.account_id, signature_of(caller))
        return Answer(shown(await self._recharges.find(caller.account_id)))


def terms_of(wanted: Wanted, packages: Packages, *, is_taxed: bool) -> Terms:
    """What is agreed to; raises `InvalidRequest`, naming the field and its bounds, or `FeatureNotAllowed`."""
    if is_taxed:
        raise FeatureNotAllowed("Taxes are computed on the payment page, so no card is charged without it here.")
    lowest, highest = packages.custom_cents_min, packages.custom_cents_max
    if not lowest <= wanted.amount_cents <= highest:
        raise InvalidRequest(f"A charge is {lowest} to {highest} cents.", param="amountCents")
    if not wanted.amount_cents <= wanted.month_cents_max <= MONTH_CENTS_MAX:
        raise InvalidRequest(
            f"The most of a month is one charge at least, and at most {MONTH_CENTS_MAX} cents.", param="monthCentsMax"
        )
    if not 0 < wanted.threshold_credits <= THRESHOLD_CREDITS_MAX:
        raise InvalidRequest(f"The threshold is 1 to {THRESHOLD_CREDITS_MAX} credits.", param="thresholdCredits")
    return Terms(wanted.threshold_credits * UCR_PER_CREDIT, wanted.amount_cents, wanted.month_cents_max)


def shown(found: Recharge | None) -> RechargeShown:
    if found is None:
        return RechargeShown(False)
    return RechargeShown(
        on=found.is_on,
        threshold_credits=format_credits(found.terms.threshold),
        amount_cents=found.terms.amount_cents,
        month_cents_max=found.terms.month_cents_max,
        paused=found.paused or None,
        card=found.card or None,
        needs_card=found.is_on and not found.has_card,
        checkout_url=found.checkout_url or None,
    )
