"""Caps are set by operators, each change with its line in the audit log, and looked at with what is used."""

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.counting import Kept
from gateway.adapters.postgres.audit_log import ChangeRefused, Signature
from gateway.adapters.postgres.caps import CapDirectory
from gateway.app.stores import Stores
from gateway.core.access.callers import Caller
from gateway.core.access.key_terms import KeyTerms
from gateway.core.access.roles import Role
from gateway.core.guard.caps import UNLIMITED, Caps, Excess
from tests.proxy.stack import open_stack

SIGNATURE = Signature("ada", "a test")
NOW_MS = 1_795_300_000_000


@pytest.fixture
async def stores(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Stores]:
    async with open_stack(database_url, redis_url, "http://127.0.0.1:9", tmp_path / "spool") as stack:
        yield stack.stores


async def test_what_is_not_named_stays_and_none_inherits_again(stores: Stores) -> None:
    who = await stores.caps.find("main")
    await stores.caps.set(who, {"day": 5, "models_denied": ["o1*"], "on_output": "refuse"}, SIGNATURE)
    assert await stores.caps.set(who, {"day": None, "month": UNLIMITED}, SIGNATURE) == Caps(
        month=UNLIMITED, models_denied=("o1*",), on_output=Excess.REFUSE
    )


async def test_every_change_stands_in_the_audit_log(stores: Stores) -> None:
    who = await stores.caps.find("main")
    await stores.caps.set(who, {"day": 5}, SIGNATURE)
    await stores.caps.set(who, {"day": 7}, SIGNATURE)
    (line, _) = await stores.audit_log.page(subject=f"account:{who.id}", count=9)
    assert (line.author, line.action, line.before, line.after) == ("ada", "caps.set", {"day": 5}, {"day": 7})


async def test_a_rotated_keys_caps_bind_the_one_in_its_place(stores: Stores) -> None:
    account = await stores.accounts.find("main")
    _, plain_id = await stores.keys.issue(account.id)
    _, key_id = await stores.keys.issue(account.id)
    wanted: dict[str, Any] = {"day": 5, "concurrent": 2, "models_allowed": ("gpt-4o*",)}
    await stores.caps.set(await stores.caps.find(key_id), wanted, SIGNATURE)

    _, next_id = await stores.keys.rotate(key_id, timedelta(hours=1), by=SIGNATURE)
    await stores.keys.rotate(plain_id, timedelta(hours=1), by=SIGNATURE)

    capped = {each.who.id: each.caps for each in await stores.caps.standing(await stores.caps.find("main"))}
    assert {key_id: capped.pop(key_id), next_id: capped.pop(next_id)} == dict.fromkeys(
        (key_id, next_id), Caps(**wanted)
    )
    assert [*capped] == [account.id]
    (line, *_) = await stores.audit_log.page(subject=f"key:{next_id}", count=9)
    assert (line.author, line.action, line.before) == ("ada", "caps.set", {})


async def test_an_account_inherits_from_its_plan_and_shows_its_keys(stores: Stores) -> None:
    account = await stores.caps.find("main")
    _, key_id = await stores.keys.issue(account.id, KeyTerms(name="phone"))
    await stores.caps.set(await stores.caps.find("plan:default"), {"day": 9, "concurrent": 2}, SIGNATURE)
    await stores.caps.set(account, {"day": 5}, SIGNATURE)
    await stores.caps.set(await stores.caps.find(key_id), {"requests_a_minute": 1}, SIGNATURE)
    of_account, of_key = await stores.caps.standing(account)
    assert of_account.caps == Caps(day=5, concurrent=2)
    assert (of_key.who.level, of_key.who.name, of_key.caps) == ("key", "phone", Caps(requests_a_minute=1))
    assert of_account.used.day == 0


async def test_members_go_by_their_address(stores: Stores) -> None:
    account = await stores.caps.find("main")
    member = await stores.members.create(account.id, "ada@example.com", Role.MEMBER)
    found = await stores.caps.find("ADA@example.com")
    assert (found.level, found.id, found.account_id) == ("member", member.id, account.id)


@pytest.mark.parametrize(
    ("who", "change"),
    [
        ("nobody", {"day": 1}),
        ("2a08ac46-bcbf-4464-8f27-edd1fca6a416", {"day": 1}),
        ("plan:", {"day": 1}),
        ("plan:defualt", {"day": 1}),
        ("main", {}),
        ("main", {"models_allowed": [""]}),
        ("main", {"models_allowed": ["x"] * 101}),
        ("main", {"models_denied": ["a\0b"]}),
        ("a key", {"on_output": "clamp"}),
    ],
)
async def test_what_cannot_be_meant_is_refused(stores: Stores, who: str, change: dict[str, object]) -> None:
    _, key_id = await stores.keys.issue((await stores.caps.find("main")).id)
    with pytest.raises(ChangeRefused):
        await stores.caps.set(await stores.caps.find(key_id if who == "a key" else who), change, SIGNATURE)


Told = list[tuple[str, Kept]]


async def directory_of(stores: Stores, told: Told) -> CapDirectory:
    """A gateway's, which has read what is set."""
    directory = CapDirectory(
        stores.pool,
        stores.plans,
        poll_s=1.0,
        clock=time.monotonic,
        on_caps=lambda holder, kept: told.append((holder.level, kept)),
    )
    await directory.refresh_step()
    return directory


async def test_who_moves_to_another_time_zone_is_looked_after_as_with_new_caps(stores: Stores) -> None:
    who = await stores.caps.find("main")
    await stores.caps.set(who, {"day": 5}, SIGNATURE)
    told: Told = []
    directory = await directory_of(stores, told)
    for zone in ("UTC", "UTC", "Asia/Tokyo", "Asia/Tokyo"):
        directory.bounds(Caller(who.id, "k1", time_zone=zone), NOW_MS)
    assert told == [("account", Kept("UTC", True, False)), ("account", Kept("Asia/Tokyo", True, False))]


async def test_an_accounts_caps_are_looked_after_once_however_many_keys_it_has(stores: Stores) -> None:
    who = await stores.caps.find("main")
    await stores.caps.set(who, {"day": 5}, SIGNATURE)
    told: Told = []
    directory = await directory_of(stores, told)
    for key_id in ("k1", "k2", "k1", "k3"):
        directory.bounds(Caller(who.id, key_id), NOW_MS)
    assert told == [("account", Kept("UTC", True, False))]


async def test_each_account_that_one_key_reports_of_has_its_own_caps_looked_after(stores: Stores) -> None:
    who = await stores.caps.find("main")
    other = await stores.accounts.create("other")
    for each in (who, await stores.caps.find(other.id)):
        await stores.caps.set(each, {"day": 5}, SIGNATURE)
    told: Told = []
    directory = await directory_of(stores, told)
    for account_id in (who.id, other.id, who.id, other.id):
        directory.bounds(Caller(account_id, "a reporter's"), NOW_MS)
    assert told == [("account", Kept("UTC", True, False))] * 2


@pytest.mark.parametrize("lifted", [None, UNLIMITED])
async def test_a_cap_that_did_not_hold_for_a_while_is_looked_after_though_nobody_called_meanwhile(
    stores: Stores, lifted: int | None
) -> None:
    """Other gateways may have let calls pass."""
    who = await stores.caps.find("main")
    told: Told = []
    directory = await directory_of(stores, told)
    for day in (5, lifted, 5, 6):
        await stores.caps.set(who, {"day": day}, SIGNATURE)
        await directory.refresh_step()
        if day is not lifted:
            directory.bounds(Caller(who.id, "k1"), NOW_MS)
    assert told == [("account", Kept("UTC", True, False))] * 2
