"""`POST /api/usage/reconcile`: a trusted service reports usage that it made elsewhere, and it is charged for once."""

from collections.abc import Callable, Collection
from typing import Annotated

import msgspec
from aiohttp import web

from gateway.adapters.postgres.usage_reports import ReportMismatch, UsageReports
from gateway.core.access.callers import Caller
from gateway.core.calls.usage import ReportedUsage
from gateway.core.calls.usage_reports import Reported, fingerprint_of, price_report
from gateway.core.errors import IdempotencyMismatch, InvalidRequest, ModelNotFound, NotFound, ScopeMissing
from gateway.core.guard.policy import inactive
from gateway.core.money import format_credits
from gateway.core.pricing.rates import RateCard
from gateway.proxy.reporting import ENDPOINT, Reporting
from gateway.web.access import Access
from gateway.web.api.account import Amount
from gateway.web.operations import Answer, Operation, read_body

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class UsageAsked(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """`usage` as OpenAI tells it. `account`, by name or id, is the key's own unless it is trusted with all."""

    idempotency_key: Name
    model: Name
    usage: ReportedUsage
    account: Name | None = None
    service_tier: Name | None = None


class UsageCharged(msgspec.Struct, frozen=True, rename="camel"):
    """`correlationId` is that of its line in the ledger. `available` is told when it was charged just now."""

    correlation_id: str
    account: str
    model: str
    cost: Amount
    rate_version: str
    is_charged: bool  # false: outside of the charging cohort, it is measured only
    available: Amount | None


class ReportsApi:
    """Keys of `trusted_accounts` may report for any account."""

    def __init__(
        self,
        access: Access,
        reports: UsageReports,
        reporting: Reporting,
        card_now: Callable[[], RateCard],
        *,
        auto_tier: str,
        trusted_accounts: Collection[str],
    ) -> None:
        self._access = access
        self._reports = reports
        self._reporting = reporting
        self._card_now = card_now
        self._auto_tier = auto_tier
        self._trusted_accounts = frozenset(trusted_accounts)

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "POST", ENDPOINT, self.report, "Charge for usage made elsewhere, once.", UsageCharged, takes=UsageAsked
            )
        ]

    async def report(self, request: web.Request) -> Answer:
        caller = await self._access.reporting(request)
        asked = read_body(await request.read(), UsageAsked)
        if not asked.idempotency_key.isprintable():
            raise InvalidRequest("idempotencyKey is 1 to 200 printable characters.", param="idempotencyKey")
        payer = await self._payer(caller, asked.account)
        if caller.restrictions is not None:
            caller.restrictions.check_model(asked.model)
        content = await self._priced(payer, asked)
        try:
            charged = await self._reporting.charge(payer, asked.idempotency_key, fingerprint_of(asked), content)
        except ReportMismatch as error:
            raise IdempotencyMismatch("This idempotencyKey was used with another report.") from error
        kept, available = charged.content, None if charged.balance is None else charged.balance.available
        shown = UsageCharged(
            charged.request_id,
            payer.account_id,
            kept.model,
            _amount(kept.cost),
            kept.rate_version,
            not charged.is_shadow,
            None if available is None else _amount(available),
        )
        return Answer(shown, is_replay=charged.balance is None)

    async def _priced(self, payer: Caller, asked: UsageAsked) -> Reported:
        """The price by the card in force; of what it sells no more, that of the first report, if there is one."""
        try:
            return price_report(self._card_now(), asked.model, asked.service_tier, asked.usage, self._auto_tier)
        except (ModelNotFound, InvalidRequest):
            kept = await self._reports.kept(payer.account_id, asked.idempotency_key, fingerprint_of(asked))
            if kept is None:
                raise
            return kept

    async def _payer(self, caller: Caller, account: str | None) -> Caller:
        if account is None or account == caller.account_id:
            return caller
        if caller.account_id not in self._trusted_accounts:
            raise ScopeMissing("This API key may report usage of its own account only.")
        payer = await self._reports.payer(account, caller)
        if payer is None:
            raise NotFound("There is no such account.")
        if payer.status != "active":
            raise inactive(payer)
        return payer


def _amount(amount: int) -> Amount:
    return Amount(format_credits(amount), amount)
