"""`tollgate reconcile`: what it says, what it keeps, and how it exits."""

import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from tests.commands import Done, tollgate

WIDTH = 100
TODAY = datetime.now(UTC).date()
YESTERDAY = TODAY - timedelta(days=1)
BALANCES = "outstanding = granted - debited"


class Desk:
    def __init__(self, database_url: str, redis_url: str) -> None:
        self.database_url = database_url
        self._stores = {"TOLLGATE_DATABASE_URL": database_url, "TOLLGATE_REDIS_URL": redis_url, "COLUMNS": str(WIDTH)}

    def run(self, *arguments: str, **environment: str) -> Done:
        return tollgate("reconcile", *arguments, env=self._stores | environment)

    async def plant(self) -> None:
        """Credit that came from nowhere, as only the owner of the tables can make it."""
        owner = await asyncpg.connect(self.database_url)
        await owner.execute("UPDATE balance SET amount = 1000000 WHERE bucket = 'revenue' AND shard = 0")
        await owner.execute("UPDATE balance SET bucket = 'promo' WHERE bucket = 'revenue' AND shard = 0")
        await owner.close()


@pytest.fixture
def desk(database_url: str, redis_url: str) -> Desk:
    return Desk(database_url, redis_url)


def test_a_day_that_agrees_exits_0_and_its_report_can_be_shown_again(desk: Desk) -> None:
    done = desk.run("--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["day"], told["is_over"], told["agrees"], told["is_whole"]) == (str(YESTERDAY), True, True, True)
    shown = desk.run("show", "--json")
    assert (shown.returncode, json.loads(shown.stdout)) == (0, told)
    assert desk.run("show", "--day", str(YESTERDAY), "--json").stdout == shown.stdout


async def test_a_mismatch_exits_1_and_is_told_with_its_figures(desk: Desk) -> None:
    await desk.plant()
    done = desk.run("--json")
    assert done.returncode == 1
    (check,) = [check for check in json.loads(done.stdout)["checks"] if check["verdict"] == "mismatch"]
    assert (check["name"], check["expected"], check["found"], check["difference"]) == (BALANCES, 0, 10**6, 10**6)
    assert desk.run("show").returncode == 1


def test_who_cannot_be_asked_makes_it_exit_2(desk: Desk) -> None:
    asked = {"OPENAI_ADMIN_KEY": "sk-admin", "TOLLGATE_UPSTREAM_URL": "http://127.0.0.1:1"}
    done = desk.run("--json", **asked, TOLLGATE_RECONCILE__OPENAI_ATTEMPTS_MAX="1")
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert (told["agrees"], told["is_whole"]) == (True, False)
    (check,) = [check for check in told["checks"] if check["is_outage"]]
    assert "OpenAI cannot be asked" in check["notes"][0]


def test_a_day_that_is_not_over_can_be_looked_at_and_is_not_kept(desk: Desk) -> None:
    done = desk.run("--day", str(TODAY))
    assert done.returncode == 0
    assert "The day is not over" in done.stdout
    shown = desk.run("show")
    assert (shown.returncode, shown.stderr) == (2, "tollgate: nothing was reconciled yet\n")


@pytest.mark.parametrize("day", ["yesterday", str(TODAY + timedelta(days=1))])
def test_a_day_that_is_none_never_exits_as_a_mismatch(desk: Desk, day: str) -> None:
    done = desk.run("--day", day)
    assert (done.returncode, done.stdout) == (2, "")


async def test_the_table_fits_a_hundred_columns(desk: Desk) -> None:
    await desk.plant()
    lines = desk.run("--day", str(TODAY)).stdout.splitlines()
    assert max(len(line) for line in lines) <= WIDTH
    assert len([line for line in lines if line.lstrip().startswith(("ok ", "mismatch ", "not checked "))]) == 7
