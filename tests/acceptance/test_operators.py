"""What operators do from the command line beside flags: corrections by two people, keys, and the daily review."""

import pytest

from tests.commands import Desk


def test_a_large_correction_takes_two_people(desk: Desk) -> None:
    desk.json("accounts", "create", "Acme")
    small = desk.json("books", "correct", "Acme", "adjustment", "10", "--reason", "an outage", "--author", "ann")
    assert (small["state"], small["balance"]) == ("posted", "10")
    arguments = ("books", "correct", "Acme", "adjustment", "60000", "--reason", "a big outage", "--author", "ann")
    assert "waits for a second person" in desk.text(*arguments)
    (waiting,) = desk.json("corrections", "list")
    assert "a big" in desk.text("corrections", "list")
    mine = desk.refused("corrections", "approve", waiting["id"], "--reason", "fine", "--author", "ann")
    assert "second person" in mine
    approved = desk.json("corrections", "approve", waiting["id"], "--reason", "fine", "--author", "bob")
    assert (approved["state"], approved["decided_by"], approved["credits"]) == ("posted", "bob", "60000")
    assert desk.json("accounts", "show", "Acme")["balance"] == "60010"
    assert desk.json("corrections", "list") == []
    actions = [line["action"] for line in desk.json("audit-log", "show")]
    assert actions == ["correction.post", "correction.propose", "correction.post", "account.create"]


def test_an_operators_key_is_shown_once(desk: Desk) -> None:
    made = desk.json("ops", "keys", "create", "ann", "--role", "operator", "--reason", "new here")
    assert made["key"].startswith("sk-ops-")
    (listed,) = desk.json("ops", "keys", "list")
    assert (listed["name"], listed["role"], listed["revoked_at"]) == ("ann", "operator", None)
    assert made["key"] not in desk.text("ops", "keys", "list")
    assert "revoked" in desk.text("ops", "keys", "revoke", made["key_id"], "--reason", "left")
    assert desk.json("ops", "keys", "list")[0]["revoked_at"]


def test_accounts_are_listed_by_name_and_status(desk: Desk) -> None:
    for name in ("Beta", "Acme"):
        desk.json("accounts", "create", name)
    desk.json("accounts", "grant", "Acme", "10", "--reason", "x")
    desk.json("accounts", "set", "Beta", "--status", "suspended", "--reason", "x")
    listed = desk.json("accounts", "list")
    assert [(each["name"], each["status"], each["balance"]) for each in listed] == [
        ("Acme", "active", "10"),
        ("Beta", "suspended", "0"),
    ]
    assert [each["name"] for each in desk.json("accounts", "list", "--status", "suspended")] == ["Beta"]
    assert "--after Acme" in desk.text("accounts", "list", "--count", "1")


def test_a_command_that_there_is_not_says_which_there_are(desk: Desk) -> None:
    assert "create, list, show" in desk.refused("accounts", "remove")


def test_the_daily_review_is_empty_where_nothing_was_used(desk: Desk) -> None:
    assert desk.json("accounts", "top", "--by", "spend", "--window", "24h") == []
    assert "no calls" in desk.text("accounts", "top")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("accounts", "set", "Acme", "--status", "suspended"), "--reason"),
        (("ops", "keys", "revoke", "ops_1", "--reason", "x"), "no key"),
        (("corrections", "reject", "x", "--reason", "x"), "correction's id"),
        (("accounts", "top", "--window", "long"), "--window"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(desk: Desk, arguments: tuple[str, ...], why: str) -> None:
    assert why in desk.refused(*arguments)


def test_every_command_that_changes_an_account_stands_in_the_audit_log(desk: Desk) -> None:
    signed = ("--author", "ann", "--reason", "a new customer")
    desk.json("accounts", "create", "Acme", *signed)
    desk.json("accounts", "grant", "Acme", "10", *signed)
    desk.json("accounts", "set", "Acme", "--priority", "low", "--status", "suspended", *signed)
    desk.json("caps", "set", "Acme", "--day", "5", *signed)
    desk.json("members", "add", "Acme", "ada@example.com", *signed)
    desk.json("members", "set", "Acme", "ada@example.com", "--role", "admin", *signed)
    desk.json("members", "remove", "Acme", "ada@example.com", *signed)
    made = desk.json("keys", "create", "Acme", *signed)
    desk.json("keys", "rotate", made["key_id"], *signed)
    desk.json("keys", "revoke", made["key_id"], *signed)
    lines = desk.json("audit-log", "show", "--author", "ann")
    assert [line["action"] for line in reversed(lines)] == [
        "account.create",
        "account.grant",
        "account.set",
        "account.status",
        "caps.set",
        "member.add",
        "member.set",
        "member.remove",
        "key.create",
        "key.rotate",
        "key.create",
        "key.revoke",
    ]
    assert {line["reason"] for line in lines} == {"a new customer"}


def test_unlimited_models_are_all_of_them_and_not_one_of_that_name(desk: Desk) -> None:
    desk.json("accounts", "create", "Acme")
    desk.json("caps", "set", "plan:default", "--models", "gpt-4o*", "--deny-models", "o1*")
    (inherited,) = desk.json("caps", "show", "Acme")
    assert (inherited["caps"]["models_allowed"], inherited["caps"]["models_denied"]) == (["gpt-4o*"], ["o1*"])
    (lifted,) = desk.json("caps", "set", "Acme", "--models", "unlimited", "--deny-models", "unlimited")
    assert (lifted["caps"]["models_allowed"], lifted["caps"]["models_denied"]) == (["*"], [])
    (again,) = desk.json("caps", "set", "Acme", "--models", "inherit", "--deny-models", "inherit")
    assert again["caps"] == inherited["caps"]


def test_caps_are_set_while_redis_is_away_and_what_is_used_is_not_told(desk: Desk, database_url: str) -> None:
    desk.json("accounts", "create", "Acme")
    without_redis = Desk(database_url, "redis://127.0.0.1:9/0")
    (set_now,) = without_redis.json("caps", "set", "Acme", "--day", "5")
    assert (set_now["caps"]["day"], set_now["used"]["day"]) == (5_000_000, None)
    (shown,) = desk.json("caps", "show", "Acme")
    assert shown["caps"]["day"] == 5_000_000
