"""Charging for usage that a trusted service reports: a call without an upstream, held and captured at once.

However often a report comes, and wherever a process dies meanwhile, one debit is made: its row in Postgres is locked
while it is reserved for, and what the ledger or Redis already knows is not reserved for again.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from gateway.adapters.postgres.caps import CapDirectory
from gateway.adapters.postgres.ledger import Ledger
from gateway.adapters.postgres.usage_reports import Report, UsageReports
from gateway.adapters.redis.credits import Refused
from gateway.core.access.callers import Caller
from gateway.core.calls.usage_reports import Reported
from gateway.core.errors import GatewayError, InsufficientCredits
from gateway.core.guard.caps import Bounds
from gateway.core.guard.policy import Controls
from gateway.core.guard.refusals import cap_refusal
from gateway.core.guard.windows import opened_ms
from gateway.core.holds import Balance, Hold, Outcome, Settlement, Terms
from gateway.core.money import format_credits
from gateway.proxy.leases import Leases
from gateway.proxy.settlements import Settlements

ENDPOINT = "/api/usage/reconcile"


class Charged(NamedTuple):
    """A report that is charged for; `balance` only when it was right now."""

    request_id: str
    content: Reported
    is_shadow: bool
    balance: Balance | None


class Reporting:
    def __init__(
        self,
        reports: UsageReports,
        leases: Leases,
        settlements: Settlements,
        ledger: Ledger,
        caps: CapDirectory,
        *,
        controls: Callable[[], Controls],
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
        at_once_max: int,
    ) -> None:
        self._reports = reports
        self._leases = leases
        self._settlements = settlements
        self._ledger = ledger
        self._caps = caps
        self._controls = controls
        self._new_id = new_id
        self._now_ms = now_ms
        # Each keeps a connection of the pool, while what it asks for needs another.
        self._turns = asyncio.Semaphore(at_once_max)

    async def charge(self, payer: Caller, key: str, fingerprint: bytes, content: Reported) -> Charged:
        """Raises the `GatewayError` that refuses it, `ReportMismatch`, `LedgerUnavailable`."""
        is_shadow = self._controls().is_shadow(payer.account_id)
        opened = self._reports.opened(payer.account_id, key, fingerprint, self._new_id(), content, is_shadow=is_shadow)
        async with self._turns, opened as report:
            bounds = self._caps.bounds(payer, opened_ms(report.request_id))
            settlement = self._settlement(payer, bounds, report)
            charged = Charged(report.request_id, report.content, settlement.terms.is_shadow, None)
            if report.is_settled:
                return charged
            refused = await self._reserve(bounds, settlement, fingerprint.hex())
            if refused is None:
                settled = await self._settlements.settle(settlement)
                await report.settled()
                return charged._replace(balance=None if settled is None else settled.balance)
            await report.refused()
            refusal = _refusal(bounds, refused)
        raise refusal

    async def _reserve(self, bounds: Bounds, settlement: Settlement, fingerprint: str) -> Refused | None:
        """Have a hold to settle, an earlier try's if there is one."""
        request_id = settlement.request_id
        if await self._ledger.ended([request_id]) or await self._ledger.lapses([request_id]):
            return None
        terms, usage = settlement.terms, settlement.usage
        tokens = usage.input_total + usage.output_total
        hold = Hold(
            request_id,
            settlement.charged,
            fingerprint,
            terms,
            1,
            tokens if bounds.keys else 0,
            bounds.keys,
            bounds.lines,
        )
        reply = await self._leases.open(hold)
        if isinstance(reply, Refused):
            return reply
        self._leases.close(reply)  # it ends now, and is never renewed
        return None

    def _settlement(self, payer: Caller, bounds: Bounds, report: Report) -> Settlement:
        content = report.content
        terms = Terms(
            account_id=payer.account_id,
            key_id=payer.key_id,
            endpoint=ENDPOINT,
            model=content.model,
            rate_version=content.rate_version,
            opened_at_ms=opened_ms(report.request_id),
            member_id=payer.member_id or "",
            is_shadow=report.is_shadow,
            counted=bounds.counted,
        )
        return Settlement(
            request_id=report.request_id,
            terms=terms,
            outcome=Outcome.EXACT,
            held=content.cost,
            cost=content.cost,
            rounding=content.rounding,
            event_at_ms=self._now_ms(),
            usage=content.usage,
            rate_key=content.rate_key,
            status=200,
        )


def _refusal(bounds: Bounds, refused: Refused) -> GatewayError:
    if refused.bound != "balance":
        return cap_refusal(bounds, *msgspec.structs.astuple(refused), affordable_output_tokens=0)
    additional = refused.needed - refused.available
    needed, available = format_credits(refused.needed), format_credits(max(refused.available, 0))
    return InsufficientCredits(
        f"This usage costs {needed} credits, {available} are available: {format_credits(additional)} more are needed.",
        bound=refused.bound,
        needed=needed,
        available=available,
        additional=format_credits(additional),
        needed_ucr=refused.needed,
        available_ucr=refused.available,
        additional_ucr=additional,
    )
