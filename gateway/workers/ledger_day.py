"""A day of the ledger beside itself and beside Redis: balances, prices, margins."""

from gateway.adapters.live_audit import REMEDY, UNCOMPARED, check_redis
from gateway.adapters.postgres.database import Pool
from gateway.adapters.postgres.reconciliation import ReconciliationReads
from gateway.adapters.redis.link import RedisLink, RedisUnavailable
from gateway.core.accounting.reconciliation import (
    Check,
    DayCosts,
    compare,
    margin_check,
    none_of,
    not_checked,
    outstanding_check,
)
from gateway.core.pricing.provider_costs import CostUnknown


class LedgerDay:
    """What it reads for long, it reads from `reads`; Redis can be compared with the primary only, call by call."""

    label = "balances, prices and margins"

    def __init__(
        self,
        reads: ReconciliationReads,
        primary: Pool,
        link: RedisLink,
        *,
        read_at_once: int,
        samples: int,
        seed: str,
        margin_percent_min: int,
        ppm_max: int,
    ) -> None:
        self._reads = reads
        self._primary = primary
        self._link = link
        self._read_at_once = read_at_once
        self._samples = samples
        self._seed = seed
        self._margin_percent_min = margin_percent_min
        self._ppm_max = ppm_max

    async def checks(self, of: DayCosts) -> tuple[Check, ...]:
        """Raises `LedgerUnavailable`."""
        count, wrong = await self._reads.wrong_prices(of.day, seed=f"{self._seed}{of.day}", count=self._samples)
        return (
            outstanding_check(*await self._reads.outstanding()),
            await self._redis(),
            compare(
                "sampled prices recomputed", "calls", count, count - len(wrong), ppm_max=self._ppm_max, notes=wrong
            ),
            self._margins(of),
            await self._shadow(of),
        )

    async def _redis(self) -> Check:
        try:
            held, balances = await check_redis(self._primary, self._link, at_once=self._read_at_once)
        except RedisUnavailable as error:
            return not_checked("Redis against Postgres", f"{error}; {REMEDY}", is_outage=True)
        uncompared = [each for each in balances if UNCOMPARED in each]
        if uncompared and len(uncompared) == len(held) + len(balances):
            return not_checked("Redis against Postgres", uncompared[0], is_outage=True)
        return none_of("Redis against Postgres", "accounts", [*held, *balances])

    async def _shadow(self, of: DayCosts) -> Check:
        name = "shadow against real prices"
        try:
            calls, real, shadow = await self._reads.shadow(of.day)
        except CostUnknown as error:
            return not_checked(name, str(error), is_outage=True)
        if not calls:
            return not_checked(name, "no call was billed in shadow", is_outage=False)
        return compare(name, "µcr", real, shadow, ppm_max=self._ppm_max)

    def _margins(self, of: DayCosts) -> Check:
        if of.unknown:
            return not_checked("margins", of.unknown, is_outage=True)
        return margin_check(of.models, percent_min=self._margin_percent_min, ppm_max=self._ppm_max)
