"""`tollgate flags` and `tollgate audit-log`, as an operator types them."""

import pytest

from tests.commands import Desk


def test_a_flag_is_set_listed_and_cleared_and_the_log_tells_of_it(desk: Desk) -> None:
    assert "at its default" in desk.text("flags", "list")
    said = desk.text("flags", "set", "charging_enabled", "on", "--percent", "5", "--reason", "first day", "--for", "2h")
    assert said.startswith("charging_enabled: on for 5 %, off for all others until 20")
    assert said.rstrip().endswith("then on for all")
    (listed,) = desk.json("flags", "list")
    assert (listed["flag"], listed["value"], listed["scope"]) == ("charging_enabled", "on", {"percent": 5})
    assert "first day" in desk.text("flags", "list")
    cleared = desk.json("flags", "clear", "charging_enabled", "--reason", "done", "--author", "bob")
    assert (cleared["value"], cleared["was"]["scope"]) == ("on", {"percent": 5})
    assert [(line["author"] == "bob", line["action"]) for line in desk.json("audit-log", "show")] == [
        (True, "flag.clear"),
        (False, "flag.set"),
    ]
    assert "flag.clear" in desk.text("audit-log", "show", "--author", "bob")


def test_accounts_are_listed_by_name_or_id(desk: Desk) -> None:
    account_id = desk.json("accounts", "create", "Acme")["account"]
    made = desk.json("flags", "set", "maintenance", "on", "--accounts", "Acme", "--reason", "a drill")
    assert made["scope"] == {"accounts": [account_id]}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("set", "maintenance", "on"), "--reason"),
        (("set", "maintainance", "on", "--reason", "x"), "flags are"),
        (("set", "maintenance", "on", "--reason", " "), "printable"),
        (("set", "maintenance", "on", "--reason", "x", "--for", "soon"), "--for"),
        (("set", "maintenance", "on", "--reason", "x", "--percent", "5", "--accounts", "a"), "not both"),
        (("set", "maintenance", "on", "--reason", "x", "--scope", "cohort"), "needs --percent"),
        (("set", "maintenance", "on", "--reason", "x", "--accounts", "nobody"), "no account"),
        (("clear", "maintenance", "--reason", "x"), "not set"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(desk: Desk, arguments: tuple[str, ...], why: str) -> None:
    assert why in desk.refused("flags", *arguments)
