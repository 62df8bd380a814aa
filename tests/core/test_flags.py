"""Flags: for whom they are, until when, and what is told of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import EndpointOff, Maintenance, PurchasesClosed
from gateway.core.guard.flags import (
    CHARGING,
    MAINTENANCE,
    PURCHASE,
    Flag,
    FlagError,
    Flags,
    Scope,
    cohort_of,
    default_of,
    in_force,
)

ANN, BOB = "0197a3c2-0000-7000-8000-000000000001", "0197a3c2-0000-7000-8000-000000000002"
CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"


def flag(
    name: str,
    value: bool,
    *,
    percent: int | None = None,
    accounts: set[str] | None = None,
    banner: str = "",
    expires_at_ms: int | None = None,
) -> Flag:
    scope = Scope(percent, None if accounts is None else frozenset(accounts))
    return Flag(name, value, scope, "database upgrade", "ann", banner, expires_at_ms)


def flags(*given_flags: Flag, now_ms: int = 0) -> Flags:
    live = in_force(given_flags, now_ms)
    assert live is not None
    return live


@given(st.uuids().map(str), st.integers(0, 100), st.integers(0, 100))
def test_a_smaller_cohort_is_within_a_larger_one(account_id: str, one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert not Scope(small).holds(account_id) or Scope(large).holds(account_id)


def test_a_cohort_holds_about_its_share_of_the_accounts() -> None:
    accounts = [f"0197a3c2-0000-7000-8000-{number:012d}" for number in range(10_000)]
    for percent in (0, 1, 5, 25, 100):
        share = sum(Scope(percent).holds(each) for each in accounts) / 100
        assert abs(share - percent) < 1.5
    assert not any(Scope(0).holds(each) for each in accounts)
    assert all(Scope(100).holds(each) for each in accounts)


def test_an_account_keeps_its_place_for_ever() -> None:
    assert (cohort_of(ANN), cohort_of(BOB)) == (17, 27)


def test_outside_of_its_scope_a_flag_has_the_other_value() -> None:
    only_ann = flags(flag(CHARGING, True, accounts={ANN}))
    assert (only_ann.is_shadow(ANN), only_ann.is_shadow(BOB)) == (False, True)
    all_but_ann = flags(flag(CHARGING, False, accounts={ANN}))
    assert (all_but_ann.is_shadow(ANN), all_but_ann.is_shadow(BOB)) == (True, False)


def test_nobody_is_shadow_billed_unless_a_flag_says_so() -> None:
    assert not flags(flag(MAINTENANCE, True)).is_shadow(ANN)


def test_maintenance_refuses_with_what_why_and_until_when() -> None:
    with pytest.raises(Maintenance) as refused:
        flags(flag(MAINTENANCE, True, expires_at_ms=1_800_000_000_000)).check_request(ANN, CHAT, 1_799_999_940_500)
    assert refused.value.message == ("Down for maintenance: database upgrade. Until 2027-01-15T08:00:00Z.")
    assert refused.value.details == {
        "what": "Down for maintenance",
        "why": "database upgrade",
        "until": "2027-01-15T08:00:00Z",
    }
    assert refused.value.retry_after_s == 60  # rounded up


@pytest.mark.parametrize(("ends_in_ms", "retry_after_s"), [(None, 60), (1, 1), (1000, 1), (1001, 2), (10**9, 3600)])
def test_callers_are_told_when_to_come_back(ends_in_ms: int | None, retry_after_s: int) -> None:
    with pytest.raises(Maintenance) as refused:
        flags(flag(MAINTENANCE, True, expires_at_ms=ends_in_ms)).check_request(ANN, CHAT, 0)
    assert refused.value.retry_after_s == retry_after_s


def test_maintenance_for_a_list_concerns_nobody_else() -> None:
    drill = flags(flag(MAINTENANCE, True, accounts={ANN}))
    drill.check_request(BOB, CHAT, 0)
    with pytest.raises(Maintenance):
        drill.check_request(ANN, CHAT, 0)


def test_an_endpoint_that_is_off_refuses_its_path_and_what_is_below() -> None:
    off = flags(flag("endpoint:/v1/models", False), flag("endpoint:/v1/embeddings", False, banner="moved"))
    off.check_request(ANN, CHAT, 0)
    off.check_request(ANN, "/v1/modelsx", 0)
    for path in ("/v1/models", "/v1/models/gpt-5"):
        with pytest.raises(EndpointOff):
            off.check_request(ANN, path, 0)
    with pytest.raises(EndpointOff, match=r"/v1/embeddings is switched off: moved\."):
        off.check_request(ANN, EMBEDDINGS, 0)


@pytest.mark.parametrize(
    ("name", "value", "refusal"), [(PURCHASE, False, PurchasesClosed), (MAINTENANCE, True, Maintenance)]
)
def test_nothing_is_sold_while_purchases_are_off_or_there_is_maintenance(
    name: str, value: bool, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal, match="database upgrade"):
        flags(flag(name, value)).check_purchase(ANN, 0)
    flags(flag(name, value, accounts={BOB})).check_purchase(ANN, 0)


def test_an_expired_flag_is_none() -> None:
    ends = flag(MAINTENANCE, True, expires_at_ms=1000)
    assert in_force([ends], 999) is not None
    assert in_force([ends], 1000) is None
    assert in_force([], 0) is None


def test_everybody_is_told_of_what_concerns_everybody() -> None:
    live = flags(
        flag(MAINTENANCE, True),
        flag(CHARGING, True, percent=5),
        flag(PURCHASE, True, percent=0),
        flag("endpoint:/v1/embeddings", False, accounts={ANN}),
    )
    assert [banner.flag for banner in live.banners()] == [MAINTENANCE, PURCHASE]
    assert [banner.flag for banner in live.banners(ANN)] == [MAINTENANCE, PURCHASE, CHARGING, "endpoint:/v1/embeddings"]


def test_a_flag_that_is_at_its_default_has_no_banner() -> None:
    live = flags(flag(CHARGING, True), flag(MAINTENANCE, False), flag(PURCHASE, True, percent=100))
    assert live.banners() == live.banners(ANN) == []


@pytest.mark.parametrize(
    "name", ["", "charging", "endpoint:", "endpoint:/v2/x", "endpoint:/v1/", "endpoint:/v1/a b", "endpoint:/v1/../x/"]
)
def test_a_flag_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(FlagError, match="no flag"):
        default_of(name)
