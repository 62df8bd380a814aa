"""The audit: checks on live data the invariants that a query can check, and recomputes every price.

It only reads. What it finds is told by count and by a few examples; what it cannot read is no proof, so it raises or
says so, and never passes.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping

import msgspec

from gateway.adapters.live_audit import REMEDY, check_redis
from gateway.adapters.postgres.database import Pool, load_queries, outages
from gateway.adapters.postgres.recorded_cards import recorded_cards
from gateway.adapters.postgres.seals import Seals
from gateway.adapters.redis.link import RedisLink, RedisUnavailable
from gateway.core.calls.usage import Usage
from gateway.core.holds import Outcome
from gateway.core.pricing.rates import Price, RateCard, UnsoldTier, price

EXAMPLES_MAX = 5
SEALED = "13. ledger rows never change or vanish: they are as they were sealed"
RECOMPUTED = "10. every capture can be recomputed from its usage and rate card"
IN_REDIS = ("3. what is held is the sum of the open holds", "7. Redis and the unposted events equal Postgres")

# Counted where they are: of a ledger that is wrong all over, every row may be one.
_COUNTED = """
    WITH found (violation) AS MATERIALIZED ({})
    SELECT (SELECT count(*) FROM found) AS violations, ARRAY(SELECT violation FROM found LIMIT $1) AS examples
"""

_CHARGED = """
    SELECT request_id::text, phase, rate_version, rate_key, outcome, usage, held, cost, rounding FROM call_usage
    WHERE cost <> 0 OR rate_key <> ''
"""


class Finding(msgspec.Struct, frozen=True):
    """One invariant: does it hold, and if not, how often and where."""

    name: str
    holds: bool
    violations: int
    examples: tuple[str, ...]


async def run_audit(
    pool: Pool,
    link: RedisLink | None,
    *,
    cards: Mapping[str, RateCard] | None = None,
    read_at_once: int = 500,
    on_progress: Callable[[str], None] = lambda name: None,
) -> list[Finding]:
    """Check every invariant; without `link`, those of Postgres alone. Raises `LedgerUnavailable`.

    `cards` are rate cards by version, beside those that Postgres keeps. `read_at_once`: see `check_redis`.
    """
    findings = []
    for name, query in load_queries("audit").items():
        on_progress(name)
        # Each in one statement, so in one snapshot: calls may go on meanwhile.
        with outages():
            row = await pool.fetchrow(_COUNTED.format(query), EXAMPLES_MAX, timeout=None)
        assert row is not None
        findings.append(Finding(name, row["violations"] == 0, row["violations"], tuple(row["examples"])))
    on_progress(SEALED)
    verdict = await Seals(pool).verify()
    findings.append(_finding(SEALED, list(verdict.findings)))
    on_progress(RECOMPUTED)
    known = dict(cards or {}) | await recorded_cards(pool)
    findings.append(await _counted(RECOMPUTED, _wrong_prices(pool, known)))
    if link is not None:
        on_progress(IN_REDIS[1])
        try:
            held, balances = await check_redis(
                pool,
                link,
                at_once=read_at_once,
                on_progress=lambda done: on_progress(f"{IN_REDIS[1]}: {done:,} accounts"),
            )
        except RedisUnavailable as error:
            held = balances = [f"could not be checked: {error}; {REMEDY}"]
        findings += [_finding(IN_REDIS[0], held), _finding(IN_REDIS[1], balances)]
    return findings


def _finding(name: str, violations: list[str]) -> Finding:
    return Finding(name, not violations, len(violations), tuple(violations[:EXAMPLES_MAX]))


async def _counted(name: str, violations: AsyncIterator[str]) -> Finding:
    count, examples = 0, list[str]()
    async for text in violations:
        count += 1
        if len(examples) < EXAMPLES_MAX:
            examples.append(text)
    return Finding(name, not count, count, tuple(examples))


async def _wrong_prices(pool: Pool, cards: Mapping[str, RateCard]) -> AsyncIterator[str]:
    decode = msgspec.json.Decoder(Usage).decode
    with outages():
        async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            async for row in connection.cursor(_CHARGED, prefetch=1000, timeout=None):
                charged = Price(row["cost"], row["rounding"])
                where = f"request {row['request_id']}, {row['phase']}"
                if not row["rate_key"]:
                    # A lapse is charged its progress, an unreadable usage its hold: neither has a price to recompute.
                    is_held = row["outcome"] == Outcome.ESTIMATED and charged == Price(row["held"], 0)
                    if row["outcome"] != Outcome.LAPSED and not is_held:
                        yield f"{where}: charged {charged.cost} without a rate"
                    continue
                card = cards.get(row["rate_version"])
                if card is None:
                    yield f"{where}: rate card {row['rate_version']} is not known"
                    continue
                expected = recompute(card, row["rate_key"], decode(row["usage"]))
                if expected != charged:
                    said = "no price" if expected is None else f"{expected.cost} (rounding {expected.rounding})"
                    yield f"{where}: charged {charged.cost} (rounding {charged.rounding}), recomputed {said}"


def recompute(card: RateCard, rate_key: str, usage: Usage) -> Price | None:
    """Price `usage` by the row and column that `rate_key` names; None if the card has no such price."""
    for model, tier in _readings(rate_key.split("/")):
        row = card.rows.get(model)
        if row is None:
            continue
        try:
            if card.rate_key(row, tier, usage.input_total) == rate_key:
                return price(usage, card.rate(row, tier, usage.input_total), card.rounding)
        except UnsoldTier:
            continue
    return None


def _readings(parts: list[str]) -> Iterable[tuple[str, str]]:
    """The (model, tier) that "model/tier" or "model/tier/input_tokens_min" may stand for; a model may hold a slash."""
    yield "/".join(parts[:-1]), parts[-1]
    if len(parts) > 2:
        yield "/".join(parts[:-2]), parts[-2]
