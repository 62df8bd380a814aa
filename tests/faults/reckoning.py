"""After a fault: nothing is held, nothing is lost, nothing counts twice, and the books are right."""

import asyncio
import time
from typing import Any

import asyncpg

from tests.acceptance.second_opinion import classes_of_log, newest_card, price_ucr
from tests.faults.load import TAG_HEADER
from tests.patience import PATIENCE_S
from tests.up import Stack

_LINES = """
    SELECT request_id::text, phase, outcome, cost, charged, upstream_request_id FROM call_usage
    WHERE account_id = $1::text::uuid
"""


async def lines_of(up: Stack, account: str) -> list[dict[str, Any]]:
    connection = await _connect(up.ready["database_url"])
    try:
        return [dict(row) for row in await connection.fetch(_LINES, account)]
    finally:
        await connection.close()


async def _connect(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    """Connect as soon as a PostgreSQL that was killed has recovered."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await asyncpg.connect(url)
            except (OSError, asyncpg.CannotConnectNowError):
                await asyncio.sleep(0.05)


def reckon(up: Stack, account: str, tag: str, credits: int, *, gateway_died: bool = False) -> list[dict[str, Any]]:
    """Check everything that must hold for the load `tag` of `account`; returns its ledger lines.

    Where a gateway died, a call may have lapsed: it is charged its progress, and its answer is not matched.
    """
    complete = {
        entry["request_id"]: entry
        for entry in up.upstream_log()
        if entry["headers"].get(TAG_HEADER) == tag and entry["outcome"] == "complete"
    }
    asyncio.run(lines_of(up, account))  # once PostgreSQL answers again
    shown = up.settled_account(account, PATIENCE_S)
    lines = _posted(up, account, credits * 1_000_000 - shown["balance_ucr"])
    missing = complete.keys() - {line["upstream_request_id"] for line in lines}
    assert gateway_died or not missing, f"{len(missing)} completed answers are not in the ledger"
    ended = [line["request_id"] for line in lines if line["phase"] == "end"]
    assert len(set(ended)) == len(ended)
    card = newest_card()
    for line in lines:
        entry = complete.get(line["upstream_request_id"])
        if entry is not None:
            assert line["cost"] == price_ucr(card, entry["served_model"], entry["tier"], classes_of_log(entry["usage"]))
    verdict = up.tollgate("audit")
    assert verdict["clean"], [finding for finding in verdict["findings"] if not finding["holds"]]
    return lines


def _posted(up: Stack, account: str, spent_ucr: int) -> list[dict[str, Any]]:
    """The ledger's lines, once they add up to what admission has debited."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        lines = asyncio.run(lines_of(up, account))
        posted_ucr = sum(line["charged"] for line in lines)
        if posted_ucr == spent_ucr:
            return lines
        assert time.monotonic() < deadline, f"{spent_ucr} µcr are debited, {posted_ucr} posted"
        time.sleep(0.1)
