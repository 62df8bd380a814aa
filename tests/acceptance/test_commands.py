"""Operators' commands against a running `up`: what they print for programs and for people, and what they refuse."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.commands import tollgate
from tests.up import Stack

COLUMNS_MAX = 80


def printed(stack: Stack, *arguments: str) -> str:
    """What a command prints for people."""
    done = tollgate(*arguments, "--data", str(stack.data))
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= COLUMNS_MAX, done.stdout
    return done.stdout


def one_line(status: int, *arguments: str, env: dict[str, str] | None = None) -> str:
    """What a command that fails says: one line on stderr, nothing on stdout."""
    done = tollgate(*arguments, env=env)
    assert (done.returncode, done.stdout) == (status, ""), done
    assert re.fullmatch(r"tollgate: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def account(stack: Stack) -> dict[str, Any]:
    made: dict[str, Any] = stack.tollgate("accounts", "create", "commands")
    return made


def test_an_account_is_found_by_its_name_and_by_its_id(stack: Stack, account: dict[str, Any]) -> None:
    by_name = stack.tollgate("accounts", "show", "commands")
    assert by_name == stack.tollgate("accounts", "show", account["account"])
    assert by_name["account"] == account["account"]


def test_amounts_are_decimal_credits_with_whole_micro_credits_beside_them(stack: Stack) -> None:
    stack.tollgate("accounts", "create", "amounts")
    granted = stack.tollgate("accounts", "grant", "amounts", "12.345678", "--reason", "a start")
    assert (granted["granted"], granted["granted_ucr"]) == ("12.345678", 12_345_678)
    shown = stack.tollgate("accounts", "show", "amounts")
    assert {name: shown[name] for name in ("balance", "held", "available")} == {
        "balance": "12.345678",
        "held": "0",
        "available": "12.345678",
    }
    assert (shown["balance_ucr"], shown["held_ucr"], shown["available_ucr"]) == (12_345_678, 0, 12_345_678)


def test_keys_are_issued_listed_and_revoked(stack: Stack, account: dict[str, Any]) -> None:
    issued = stack.tollgate("keys", "issue", account["account"], "--name", "ci")
    assert issued["key"].startswith("sk-tg-")
    [listed] = stack.tollgate("keys", "list", "commands")["keys"]
    assert (listed["key_id"], listed["name"], listed["revoked_at"]) == (issued["key_id"], "ci", None)
    assert issued["key"].startswith(listed["prefix"])
    assert issued["key"] not in json.dumps(listed)
    assert stack.tollgate("keys", "revoke", issued["key_id"]) == {"key_id": issued["key_id"], "revoked": True}
    [listed] = stack.tollgate("keys", "list", "commands")["keys"]
    assert listed["revoked_at"] is not None
    stack.tollgate("keys", "revoke", issued["key_id"])  # again changes nothing


def test_a_key_is_created_for_a_member_on_terms_and_rotated(stack: Stack, account: dict[str, Any]) -> None:
    stack.tollgate("members", "add", "commands", "ada@example.com", "--role", "owner", "--name", "Ada")
    created = stack.tollgate(
        "keys", "create", "commands", "--name", "laptop", "--member", "ada@example.com", "--scope", "calls",
        "--expires", "90d", "--model", "gpt-4o*", "--endpoint", "/v1/chat/*", "--network", "192.0.2.0/24",
        "--priority", "low",
    )  # fmt: skip
    rotated = stack.tollgate("keys", "rotate", created["key_id"], "--overlap", "15m")
    new, old = stack.tollgate("keys", "list", "commands")["keys"][:2]
    assert (new["key_id"], new["rotated_from"], old["key_id"]) == (rotated["key_id"], old["key_id"], created["key_id"])
    assert (new["member"], new["scopes"], new["models"]) == ("ada@example.com", ["calls"], ["gpt-4o*"])
    assert (new["endpoints"], new["networks"], new["priority"]) == (["/v1/chat/*"], ["192.0.2.0/24"], "low")
    assert old["expires_at"] < new["expires_at"]
    stack.tollgate("members", "add", "commands", "bea@example.com", "--role", "owner")
    changed = stack.tollgate("members", "set", "commands", "ada@example.com", "--role", "viewer")
    assert (changed["role"], changed["status"]) == ("viewer", "active")
    stack.tollgate("members", "remove", "commands", "ada@example.com")
    assert [each["email"] for each in stack.tollgate("members", "list", "commands")["members"]] == ["bea@example.com"]
    assert all(each["revoked_at"] for each in stack.tollgate("keys", "list", "commands")["keys"][:2])


def test_an_account_is_suspended_and_taken_up_again(stack: Stack) -> None:
    created = stack.tollgate("accounts", "create", "suspended")
    suspended = stack.tollgate("accounts", "set", "suspended", "--status", "suspended", "--reason", "asked to")
    terms = {"plan": "default", "priority": "normal", "time_zone": "UTC"}
    assert suspended == created | {"status": "suspended", "on_disconnect": "drain"} | terms
    back = ("--status", "active", "--on-disconnect", "cancel", "--reason", "asked to", "--priority", "low")
    cancels = stack.tollgate("accounts", "set", "suspended", *back)
    assert cancels == created | {"status": "active", "on_disconnect": "cancel"} | terms | {"priority": "low"}
    assert stack.tollgate("accounts", "show", "suspended")["on_disconnect"] == "cancel"


def test_the_audit_lists_every_invariant(stack: Stack) -> None:
    verdict = stack.tollgate("audit")
    assert verdict["clean"] is True
    assert len(verdict["findings"]) > 10
    assert verdict["findings"][0].keys() == {"invariant", "holds", "violations", "examples"}


def test_rates_are_checked_and_shown() -> None:
    [card] = json.loads(tollgate("rates", "check", "--json").stdout)["cards"]
    assert card["models"] > 50
    shown = json.loads(tollgate("rates", "show", "gpt-4o-mini", "--json").stdout)
    assert shown["rate_card"] == card["version"]
    assert shown["tiers"]["default"][0]["rate"]["input"] == 600_000_000


def test_rates_of_a_running_up_are_those_it_charges_by(stack: Stack) -> None:
    [card] = [card for card in stack.tollgate("rates", "check")["cards"] if card["standing"] == "in force"]
    assert stack.tollgate("rates", "show", "gpt-4o-mini")["rate_card"] == card["version"]


def test_a_built_card_is_checked_by_its_path_and_takes_its_place_by_its_day(tmp_path: Path) -> None:
    first, second = tmp_path / "b.toml", tmp_path / "a.toml"
    built = json.loads(tollgate("rates", "build", "--date", "2026-01-01", "--out", str(first), "--json").stdout)
    tollgate("rates", "build", "--date", "2026-02-01", "--markup", "2", "--out", str(second))
    [checked] = json.loads(tollgate("rates", "check", str(first), "--json").stdout)["cards"]
    assert checked == {
        "version": built["version"],
        "models": built["models"],
        "effective_from": "2026-01-01",
        "standing": "in force",
    }
    both = json.loads(tollgate("rates", "check", str(tmp_path), "--json").stdout)["cards"]
    assert {card["version"][0]: card["standing"] for card in both} == {"a": "in force", "b": "past"}
    shown = tollgate("rates", "show", "gpt-4o-mini", "--json", env={"TOLLGATE_RATE_CARD": str(tmp_path)})
    assert json.loads(shown.stdout)["rate_card"][0] == "a"


@pytest.mark.parametrize(
    ("given", "said"),
    [(("--markup", "1e400"), "markup: must be"), (("--markup", "x"), "not a number"), (("--date", "x"), "not a day")],
)
def test_a_card_that_no_gateway_could_read_is_not_built(given: tuple[str, str], said: str) -> None:
    assert said in one_line(1, "rates", "build", *given)


def test_a_card_that_disagrees_with_itself_is_named_with_its_mistake(tmp_path: Path) -> None:
    path = tmp_path / "2026-01-01-odd.toml"
    tollgate("rates", "build", "--date", "2026-01-01", "--out", str(path))
    path.write_text(path.read_text().replace("ucr = 600_000_000", "ucr = 600_000_001", 1))
    assert "2026-01-01-odd.toml: models." in one_line(2, "rates", "check", str(path))
    assert "no such file" in one_line(2, "rates", "check", str(tmp_path / "none.toml"))


def test_dead_letters_are_listed_and_one_that_is_not_there_is_refused(stack: Stack) -> None:
    assert stack.tollgate("ledger", "dead-letters", "list") == {"dead_letters": []}
    assert "no dead letters" in printed(stack, "ledger", "dead-letters", "list")
    for action in ("retry", "dismiss"):
        said = one_line(1, "ledger", "dead-letters", action, "7", "--reason", "why", "--data", str(stack.data))
        assert "no dead letter 7" in said


def test_the_ledger_is_verified_against_its_seals_and_prints_its_head(stack: Stack) -> None:
    verdict = stack.tollgate("ledger", "verify")
    assert (verdict["sound"], verdict["findings"]) == (True, [])
    assert "as it was sealed" in printed(stack, "ledger", "verify")
    done = tollgate("ledger", "verify", "--head", "00ff", "--data", str(stack.data), "--json")
    assert (done.returncode, json.loads(done.stdout)["sound"]) == (1, False)


def test_migrating_what_is_current_changes_nothing(stack: Stack) -> None:
    assert stack.tollgate("migrate") == {"schema": "current"}


def test_people_read_tables_that_fit_eighty_columns(stack: Stack) -> None:
    assert "created" in printed(stack, "accounts", "create", "readers")
    assert "granted 5 credits; 5 available" in printed(stack, "accounts", "grant", "readers", "5", "--reason", "why")
    assert "is an owner" in printed(stack, "members", "add", "readers", "ada@example.com", "--role=owner")
    assert "ada@example.com" in printed(stack, "members", "list", "readers").replace("\n", "").replace(" ", "")
    made = printed(stack, "keys", "create", "readers", "--name", "a long name for a key", "--expires", "90d")
    key = re.search(r"key +(sk-tg-\S+)\nkey id +(key_\S+)\n", made)
    assert key is not None
    assert key[2] in printed(stack, "keys", "list", "readers")
    assert key[1] not in printed(stack, "keys", "list", "readers")
    assert "readers" in printed(stack, "accounts", "show", "readers")
    assert "is revoked" in printed(stack, "keys", "revoke", key[2])
    assert "suspended" in printed(stack, "accounts", "set", "readers", "--status", "suspended", "--reason", "x")
    assert "the books are right" in printed(stack, "audit")
    for arguments in (("rates", "check"), ("rates", "show", "gpt-5.4")):
        assert max(map(len, tollgate(*arguments).stdout.splitlines())) <= COLUMNS_MAX


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("accounts", "show", "nobody"), "no account 'nobody'"),
        (("accounts", "grant", "nobody", "5", "--reason", "x"), "no account 'nobody'"),
        (("accounts", "create", "commands"), "already"),
        (("accounts", "create", "  "), "name must be"),
        (("accounts", "create", "a\nb"), "name must be"),
        (("accounts", "grant", "commands", "-5", "--reason", "x"), "more than 0"),
        (("accounts", "grant", "commands", "0", "--reason", "x"), "more than 0"),
        (("accounts", "grant", "commands", "NaN", "--reason", "x"), "not a number"),
        (("accounts", "grant", "commands", "inf", "--reason", "x"), "not a number"),
        (("accounts", "grant", "commands", "five", "--reason", "x"), "not a number"),
        (("accounts", "grant", "commands", "0.0000001", "--reason", "x"), "six decimals"),
        (("accounts", "grant", "commands", "1e20", "--reason", "x"), "largest amount"),
        (("accounts", "grant", "commands", "5", "--reason", " "), "reason must be"),
        (("accounts", "set", "commands"), "nothing to set"),
        (("accounts", "set", "commands", "--plan", "tema"), "'tema' is no plan; choose one of: default"),
        (("caps", "set", "plan:tema", "--day", "1"), "'tema' is no plan; choose one of: default"),
        (("keys", "create", "nobody"), "no account 'nobody'"),
        (("keys", "create", "commands", "--member", "eve@example.com"), "no member 'eve@example.com'"),
        (("keys", "create", "commands", "--network", "home"), "networks are like"),
        (("keys", "create", "commands", "--expires", "soon"), "a span like 90d"),
        (("keys", "rotate", "key_unknown"), "no key 'key_unknown'"),
        (("keys", "rotate", "key_unknown", "--overlap", "long"), "30s, 15m, 24h or 7d"),
        (("members", "add", "commands", "eve"), "like ada@example.com"),
        (("members", "set", "commands", "eve@example.com"), "nothing to set"),
        (("members", "set", "commands", "eve@example.com", "--role", "viewer"), "no member"),
        (("keys", "list", "nobody"), "no account 'nobody'"),
        (("keys", "revoke", "key_unknown"), "no key 'key_unknown'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    stack: Stack, account: dict[str, Any], arguments: tuple[str, ...], said: str
) -> None:
    assert said in one_line(1, *arguments, "--data", str(stack.data))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("accounts", "grant", "commands", "5"), "--reason"),
        (("accounts", "set", "commands", "--status", "asleep"), "'--status': 'asleep' is not one of 'active'"),
        (("accounts", "show", "commands", "--frobnicate"), "--frobnicate"),
        (("frobnicate",), "frobnicate"),
        (("up", "--workers", "0"), "--workers"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    assert said in one_line(2, *arguments)


def test_a_model_that_is_not_on_the_card_is_refused() -> None:
    assert "not on rate card" in one_line(1, "rates", "show", "gpt-unheard-of")
