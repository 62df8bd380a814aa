"""Going live with charging by the runbook's own commands, on two gateways; and how soon a flag takes effect on both."""

import asyncio
import json
import re
import shlex
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bench.flag_effect import BODY, measure
from gateway.app.stores import open_stores
from gateway.config import load
from gateway.core.guard.flags import cohort_of
from tests.commands import tollgate
from tests.patience import PATIENCE_S
from tests.up import Stack

RUNBOOK = Path(__file__).parents[2] / "deploy" / "runbook.md"
ACCOUNTS = 12
CHANGES = 6


def commands() -> list[list[str]]:
    """What the runbook says to type, of the section about going live."""
    section = RUNBOOK.read_text().partition("## Going live with charging")[2].partition("\n## ")[0]
    lines = re.findall(r"^tollgate (.*)$", section, re.MULTILINE)
    assert len(lines) > 10
    return [shlex.split(line) for line in lines]


def percent_after(command: list[str]) -> int | None:
    """Whom the command lets be charged; None if it is about something else."""
    if command[:1] != ["flags"] or command[2:3] != ["charging_enabled"]:
        return None
    if "--percent" in command:
        return int(command[command.index("--percent") + 1])
    return 100 if command[1] == "clear" else 0


def is_charged(pair: Stack, key: str) -> bool:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    asked = urllib.request.Request(f"{pair.base_url}/chat/completions", BODY, headers)
    with urllib.request.urlopen(asked) as answer:
        return answer.headers["x-credits-shadow-cost"] is None


def test_the_runbook_leads_to_charging_and_back(pair: Stack) -> None:
    callers = [pair.new_caller(f"cohort {number}", 10) for number in range(ACCOUNTS)]
    seen = []
    for command in commands():
        done = tollgate(*command, "--data", str(pair.data))
        assert (done.returncode, done.stderr) == (0, ""), command
        percent = percent_after(command)
        if percent is None:
            continue
        seen.append(percent)
        deadline = time.monotonic() + PATIENCE_S
        while any(is_charged(pair, key) != (cohort_of(account_id) < percent) for account_id, key in callers):
            assert time.monotonic() < deadline, command
    assert seen == [0, 5, 25, 100, 0]
    tollgate("flags", "clear", "charging_enabled", "--reason", "the test is over", "--data", str(pair.data))


def test_a_flag_takes_effect_on_both_gateways_under_load(pair: Stack) -> None:
    keys = [pair.new_caller(f"load {number}", 1000)[1] for number in range(4)]

    async def run() -> float:
        config = load(database_url=pair.ready["database_url"], redis_url=pair.ready["redis_url"])
        async with open_stores(config) as stores:
            return (await measure(pair.base_url, keys, stores.flags, CHANGES)).quantile(0.99)

    assert asyncio.run(run()) < PATIENCE_S  # how soon is measured by `bench.flag_effect`
    with urllib.request.urlopen(f"{pair.ops_url}/metrics") as reply:
        refused = re.findall(r'tollgate_refusals_total\{.*code="maintenance".*process="([^"]+)"', reply.read().decode())
    assert len(set(refused)) == 2


def test_the_operations_api_is_served_where_the_metrics_are(pair: Stack) -> None:
    made = pair.tollgate("ops", "keys", "create", "ann", "--role", "operator", "--reason", "new here")
    headers = {"Authorization": f"Bearer {made['key']}"}
    with urllib.request.urlopen(urllib.request.Request(f"{pair.ops_url}/ops/me", headers=headers)) as answer:
        assert json.load(answer) == {"name": "ann", "role": "operator"}
    body = json.dumps({"name": "maintenance", "value": False, "reason": "it is not"}).encode()
    asked = urllib.request.Request(f"{pair.ops_url}/ops/flags", body, headers)
    with urllib.request.urlopen(asked) as answer:
        assert json.load(answer)["author"] == "ann"
    assert pair.tollgate("flags", "clear", "maintenance", "--reason", "over")["was"]["reason"] == "it is not"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{pair.ops_url}/ops/me")
