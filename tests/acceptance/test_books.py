"""After a mixed load the books agree with the other side's: every line of the ledger, to the micro-credit."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from tests.acceptance.mixed_load import LEAVERS, MIX, run_mix
from tests.acceptance.second_opinion import classes_of_log, newest_card, price_ucr
from tests.patience import PATIENCE_S
from tests.up import Stack, running_up

ACCOUNTS = 5
CREDITS = 100_000
DRAIN_S = 3
CALLS = len(MIX) + len(LEAVERS)
EVENTS_LOST_MAX = 6

LINES = """
    SELECT account_id::text, endpoint, model, outcome, usage, held, cost, charged, rounding, flags, status, rate_key,
           upstream_request_id
    FROM call_usage ORDER BY event_at
"""

Line = dict[str, Any]


class Books:
    """What both sides wrote down about one load."""

    def __init__(self, stack: Stack, accounts: list[str], failed: int, lines: list[Line]) -> None:
        self.stack = stack
        self.accounts = accounts
        self.failed = failed
        self.lines = lines
        self.log = {entry["request_id"]: entry for entry in stack.upstream_log()}

    def of(self, outcome: str) -> list[Line]:
        found = [line for line in self.lines if line["outcome"] == outcome]
        assert found, f"the load has no line that is {outcome}"
        return found

    def matched(self, lines: list[Line]) -> Iterator[tuple[Line, dict[str, Any]]]:
        for line in lines:
            if line["upstream_request_id"]:
                yield line, self.log[line["upstream_request_id"]]


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    folder = tmp_path_factory.mktemp("books")
    config = folder / "short-drain.toml"
    config.write_text(f"[disconnect]\ndrain_s = {DRAIN_S}\n")
    with running_up(folder / "data", "--config", str(config)) as stack:
        callers = [stack.new_caller(f"books-{n}", CREDITS) for n in range(ACCOUNTS)]
        poor, poor_key = stack.new_caller("poor", 0)
        keys = [key for _, key in callers]
        failed = asyncio.run(run_mix(stack.base_url, keys, MIX))
        asyncio.run(run_mix(stack.base_url, keys, LEAVERS))
        assert asyncio.run(run_mix(stack.base_url, [poor_key], MIX[:3])) == 3
        lines = asyncio.run(posted(stack, CALLS))
        yield Books(stack, [account for account, _ in callers] + [poor], failed, lines)


async def posted(stack: Stack, count: int) -> list[Line]:
    """The usage lines, once there are `count`."""
    connection = await asyncpg.connect(stack.ready["database_url"])
    try:
        await connection.set_type_codec("jsonb", encoder=str, decoder=_decode, schema="pg_catalog")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            lines = [dict(row) for row in await connection.fetch(LINES)]
            if len(lines) >= count:
                return lines
            assert time.monotonic() < deadline, f"{len(lines)} of {count} calls are posted"
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


def _decode(text: str) -> Any:
    import json

    return json.loads(text)


def test_every_call_that_reached_upstream_has_one_line(books: Books) -> None:
    assert len(books.log) == len(books.lines) == CALLS
    named = [line["upstream_request_id"] for line in books.lines if line["upstream_request_id"]]
    assert len(set(named)) == len(named)
    unnamed = [line for line in books.lines if not line["upstream_request_id"]]
    unanswered = [entry for entry in books.log.values() if entry["request_id"] not in named]
    assert len(unnamed) == len(unanswered)
    assert all(entry["status"] == 0 or entry["outcome"] in ("cut", "client_gone") for entry in unanswered)


def test_what_was_reported_is_charged_as_the_upstream_counted_it(books: Books) -> None:
    card = newest_card()
    for line, entry in books.matched(books.of("exact") + books.of("drained")):
        expected = price_ucr(card, entry["served_model"], entry["tier"], classes_of_log(entry["usage"]))
        assert line["cost"] == line["charged"] == expected, (line, entry)
        assert entry["outcome"] == "complete"


def test_what_was_not_consumed_costs_nothing(books: Books) -> None:
    for line in books.of("void"):
        assert (line["cost"], line["charged"], line["usage"]) == (0, 0, {})
    for _, entry in books.matched(books.of("void")):
        assert entry["status"] >= 400 or entry["outcome"] in ("cut", "failed")


def test_a_usage_that_is_missing_or_absurd_costs_what_was_held(books: Books) -> None:
    kept = [line for line in books.of("estimated") if not line["rate_key"]]
    asked = [_scenario(entry) for _, entry in books.matched(kept)]
    assert len(asked) == len(kept)
    assert {name.partition("=")[0] for name in asked} == {"no-usage", "absurd-usage", "malformed"}
    assert all(line["cost"] == line["charged"] == line["held"] for line in kept)


def test_a_cut_answer_costs_what_arrived(books: Books) -> None:
    card = newest_card()
    cut = [line for line in books.of("estimated") if line["rate_key"]]
    for line in cut:
        counts = {"input": line["usage"].get("input", 0), "output": line["usage"].get("output", 0)}
        assert line["usage"].keys() <= counts.keys()
        assert counts["input"] > 0
        assert line["cost"] == line["charged"] == price_ucr(card, line["model"], line["rate_key"].split("/")[1], counts)
        assert line["cost"] <= line["held"]
        if not line["upstream_request_id"]:
            assert counts["output"] == 0, line
    for line, entry in books.matched(cut):
        arrived = line["usage"].get("output", 0)
        written = entry["usage"]["completion"] - entry["usage"]["reasoning"]
        if not entry["stream"]:
            assert arrived == 0, (line, entry)  # half a document is passed on to nobody
        elif "reset" in _scenario(entry) or "rate" in _scenario(entry):
            # A reset may take what was sent with it; an event may be on its way when the drain's time is up.
            assert written - EVENTS_LOST_MAX <= arrived <= written, (line, entry)
        else:
            assert arrived == written, (line, entry)


def test_every_hold_covered_its_call(books: Books) -> None:
    card = newest_card()
    for line, entry in books.matched(books.lines):
        if entry["served_model"] and entry["served_model"].startswith(line["model"]):
            most = price_ucr(card, entry["served_model"], entry["tier"], classes_of_log(entry["usage"]))
            assert most <= line["held"] or "overrun" in line["flags"], (line, entry)


def test_nothing_is_held_and_every_balance_is_what_its_lines_leave(books: Books) -> None:
    for account in books.accounts[:-1]:
        shown = books.stack.settled_account(account)
        spent = sum(line["charged"] for line in books.lines if line["account_id"] == account)
        assert shown["balance_ucr"] == shown["available_ucr"] == CREDITS * 1_000_000 - spent
    poor = books.stack.settled_account(books.accounts[-1])
    assert (poor["balance_ucr"], poor["held_ucr"]) == (0, 0)


def test_the_audit_is_clean(books: Books) -> None:
    verdict = books.stack.tollgate("audit", status=0)
    assert verdict["clean"], verdict


def test_the_load_was_as_mixed_as_it_was_meant_to_be(books: Books) -> None:
    assert {line["outcome"] for line in books.lines} == {"exact", "drained", "estimated", "void"}
    flags = {flag for line in books.lines for flag in line["flags"]}
    assert flags >= {"cut", "usage_missing", "usage_absurd"}
    assert {entry["outcome"] for entry in books.log.values()} >= {"complete", "error", "cut", "failed", "client_gone"}
    assert books.failed > 30


def _scenario(entry: dict[str, Any]) -> str:
    scenario: str = entry["headers"].get("x-sandbox-scenario", "")
    return scenario
