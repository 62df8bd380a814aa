"""Operators' commands about money that came through Stripe, against a running `up` with the simulated one."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import stripe

from gateway.supervisor import SANDBOX_STRIPE
from tests.commands import tollgate
from tests.patience import PATIENCE_S
from tests.up import Stack

SMOKE = Path(__file__).parents[2] / "deploy" / "stripe_smoke.sh"


class Sold(NamedTuple):
    purchase_id: str
    stripe_url: str
    account: str
    key: str


def post(url: str, body: Any, **headers: str) -> Any:
    sent = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"} | headers)
    with urllib.request.urlopen(sent, timeout=10) as answer:
        return json.load(answer)


def begin(stack: Stack, key: str, idempotency_key: str) -> Any:
    """A purchase that is not paid yet."""
    url = stack.base_url.removesuffix("/v1")
    named = {"Authorization": f"Bearer {key}", "Idempotency-Key": idempotency_key}
    return post(f"{url}/api/purchases", {"package": "starter"}, **named)


def sell(stack: Stack, name: str) -> Sold:
    account, key = stack.new_caller(name, credits=0)
    told = begin(stack, key, "one")
    page = urlsplit(told["checkoutUrl"])
    stripe_url = f"{page.scheme}://{page.netloc}"
    post(f"{stripe_url}/_sandbox/checkout_sessions/{page.path.rpartition('/')[2]}/pay", {})
    until(lambda: stack.tollgate("purchases", "show", told["id"])["state"] == "paid")
    return Sold(told["id"], stripe_url, account, key)


def until(is_so: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def printed(stack: Stack, columns: int, *arguments: str) -> str:
    """What a command prints for people on a terminal of that width."""
    done = tollgate(*arguments, "--data", str(stack.data), env={"COLUMNS": str(columns)})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(stack: Stack, *arguments: str) -> str:
    said = stack.tollgate(*arguments, status=1)
    assert said.count("\n") == 1
    return str(said)


@pytest.fixture(scope="module")
def sold(stack: Stack) -> Sold:
    return sell(stack, "buyer")


@pytest.mark.parametrize("columns", [80, 100])
def test_purchases_and_events_fit_the_terminal_and_their_ids_can_be_copied(
    stack: Stack, sold: Sold, columns: int
) -> None:
    listed = printed(stack, columns, "purchases", "list")
    assert sold.purchase_id in listed
    events = stack.tollgate("stripe", "events", "list", "--type", "payment_intent.succeeded")["events"]
    shown = printed(stack, columns, "stripe", "events", "list")
    assert events[0]["id"] in shown
    assert max(len(line) for line in (listed + shown).splitlines()) <= columns


def test_a_purchase_is_shown_as_it_stands_in_the_books(stack: Stack, sold: Sold) -> None:
    shown = stack.tollgate("purchases", "show", sold.purchase_id)
    told = {name: shown[name] for name in ("account", "package", "price", "tax", "credits", "stripe_fees")}
    assert told == {
        "account": sold.account,
        "package": "starter",
        "price": "$5.00",
        "tax": "$0.00",
        "credits": "5000",
        "stripe_fees": "$0.45",
    }
    assert shown["payment_intent"].startswith("pi_")
    assert "there is no purchase" in refused(stack, "purchases", "show", "nothing")


def test_an_event_is_shown_as_it_came_and_replayed_for_nothing(stack: Stack, sold: Sold) -> None:
    [event] = [
        each
        for each in stack.tollgate("stripe", "events", "list", "--type", "checkout.session.completed")["events"]
        if sold.purchase_id in stack.tollgate("stripe", "events", "show", each["id"])["body"]
    ]
    for how in (["--id", event["id"]], ["--type", "checkout.session.completed"], ["--since", "2026-01-01"]):
        assert stack.tollgate("stripe", "events", "replay", *how)["replayed"] >= 1
    until(lambda: not stack.tollgate("stripe", "events", "list", "--state", "received")["events"])
    assert stack.tollgate("accounts", "show", sold.account)["available"] == "5000"
    for arguments in (["replay"], ["replay", "--id", "evt_none"], ["show", "evt_none"]):
        refused(stack, "stripe", "events", *arguments)


def test_a_backfill_finds_nothing_that_was_missed(stack: Stack, sold: Sold) -> None:
    done = stack.tollgate("stripe", "backfill")
    assert (done["events"], done["payments"] >= 1) == (0, True)
    assert stack.tollgate("accounts", "show", sold.account)["available"] == "5000"


def test_what_was_paid_and_not_sold_is_a_dead_event_that_says_why(stack: Stack, sold: Sold) -> None:
    unpaid = begin(stack, sold.key, "another")
    client = stripe.StripeClient(SANDBOX_STRIPE["STRIPE_SECRET_KEY"], base_addresses={"api": sold.stripe_url})
    client.v1.payment_intents.create(
        {
            "amount": 100,
            "currency": "usd",
            "payment_method": "pm_card_visa",
            "confirm": True,
            "metadata": {"purchase_id": unpaid["id"]},
        }
    )
    until(lambda: stack.tollgate("stripe", "events", "list", "--state", "dead")["events"])
    dead = stack.tollgate("stripe", "events", "list", "--state", "dead")["events"]
    assert {each["reason"] for each in dead} == {"paid 100 cents, sold 500 and 0 of tax"}
    assert stack.tollgate("purchases", "show", unpaid["id"])["state"] == "mismatched"
    assert "paid 100 cents" in printed(stack, 80, "stripe", "events", "list", "--state", "dead")


def test_a_refund_pays_back_what_is_unused_and_once(stack: Stack) -> None:
    bought = sell(stack, "refunded").purchase_id
    asked = ["refunds", "create", bought, "--credits", "1000", "--reason", "asked for"]
    first = stack.tollgate(*asked)
    assert (first["state"], first["cents"]) == ("made", 100)
    assert stack.tollgate(*asked) == first
    assert stack.tollgate("refunds", "create", bought, "--credits", "1e3", "--reason", "asked for") == first
    assert "at most $4.00" in refused(stack, "refunds", "create", bought, "--credits", "4010", "--reason", "too much")
    assert "by the cent" in refused(stack, "refunds", "create", bought, "--credits", "1003", "--reason", "odd")
    for amount in ("-10", "x"):
        refused(stack, "refunds", "create", bought, "--credits", amount, "--reason", "no amount")
    assert stack.tollgate("refunds", "create", bought, "--reason", "the rest")["cents"] == 400
    assert stack.tollgate("accounts", "show", "refunded")["available"] == "0"


def smoke(stack: Stack, key: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [str(SMOKE), stack.base_url.removesuffix("/v1"), key, str(stack.data)]
    named = os.environ | {"TOLLGATE": f"{sys.executable} -m gateway"} | env
    return subprocess.run(command, env=named, capture_output=True, text=True, timeout=600, check=False)


def test_the_runbooks_smoke_script_buys_replays_and_refunds(pair: Stack) -> None:
    done = smoke(pair, pair.new_caller("smoke", credits=0)[1])  # where no other test leaves dead events
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("All is well with Stripe")


def test_the_smoke_script_touches_no_real_money_and_says_what_is_wrong(stack: Stack) -> None:
    _, key = stack.new_caller("smoke without a purchase")
    done = smoke(stack, key, STRIPE_SECRET_KEY="sk_live_never")
    assert (done.returncode, "live" in done.stderr) == (1, True)
    assert "sells nothing" in smoke(stack, "sk-tg-unknown").stderr


def test_the_smoke_script_finds_the_command_by_its_name_and_says_if_it_reaches_nothing(stack: Stack) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    assert "sells nothing" in smoke(stack, "sk-tg-unknown", TOLLGATE="", PATH=path).stderr
    assert "does not reach the databases" in smoke(stack, "sk-tg-unknown", TOLLGATE="false").stderr


def test_automatic_recharge_is_agreed_to_shown_and_turned_off(stack: Stack, sold: Sold) -> None:
    terms = ["--below", "100", "--dollars", "10", "--month-dollars", "50"]
    assert stack.tollgate("recharge", "show", "buyer") == {"on": False, "attempts": []}
    told = stack.tollgate("recharge", "set", "buyer", *terms)
    assert (told["on"], told["amount_cents"], told["needs_card"]) == (True, 1000, True)
    shown = printed(stack, 80, "recharge", "show", "buyer")
    assert max(map(len, shown.splitlines())) <= 80
    assert "The most of a month is one charge" in refused(
        stack, "recharge", "set", "buyer", *terms[:4], "--month-dollars", "5"
    )
    stack.tollgate("recharge", "off", "buyer")
    assert stack.tollgate("recharge", "show", "buyer")["on"] is False


def test_nothing_is_sold_without_a_key(tmp_path: Path, stack: Stack) -> None:
    urls = {f"TOLLGATE_{name.upper()}": stack.ready[name] for name in ("database_url", "redis_url")}
    done = tollgate("purchases", "list", env=urls)
    assert (done.returncode, "STRIPE_SECRET_KEY is not set" in done.stderr) == (2, True)
