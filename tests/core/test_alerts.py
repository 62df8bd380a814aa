"""Warnings: of what was asked for only, just below the bound, and about days only where there is a usual day."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.guard.alerts import Standing, Wishes, warnings
from gateway.core.guard.notices import FIELDS, Kind

amounts = st.integers(-(10**15), 10**15)
spent = st.integers(0, 10**15)
known = st.integers(0, 7)


def kinds(wishes: Wishes, standing: Standing) -> list[Kind]:
    return [kind for kind, _ in warnings(wishes, standing)]


@pytest.mark.parametrize(
    ("wishes", "standing", "expected"),
    [
        (Wishes(100, 0), Standing(100), []),
        (Wishes(100, 0), Standing(99), [Kind.LOW_BALANCE]),
        (Wishes(0, 3), Standing(300, 700, 7), []),
        (Wishes(0, 3), Standing(299, 700, 7), [Kind.DAYS_LEFT]),
        (Wishes(0, 3), Standing(299, 200, 2), [Kind.DAYS_LEFT]),  # two days of 100
        (Wishes(0, 3), Standing(0, 0, 0), []),
        (Wishes(100, 3), Standing(-5, 100, 1), [Kind.LOW_BALANCE, Kind.DAYS_LEFT]),
        (Wishes(0, 0), Standing(1, 700, 7), []),
    ],
)
def test_each_warning_comes_just_below_its_bound(wishes: Wishes, standing: Standing, expected: list[Kind]) -> None:
    assert kinds(wishes, standing) == expected


@given(st.builds(Wishes, st.integers(0, 10**15), st.integers(0, 365)), amounts, spent, known, spent)
def test_who_has_more_is_never_warned_more(wishes: Wishes, available: int, total: int, days: int, more: int) -> None:
    richer = kinds(wishes, Standing(available + more, total, days))
    assert set(richer) <= set(kinds(wishes, Standing(available, total, days)))


@given(st.builds(Wishes, st.integers(0, 10**15), st.integers(0, 365)), amounts, spent, known)
def test_every_warning_has_its_fields(wishes: Wishes, available: int, total: int, days: int) -> None:
    for kind, fields in warnings(wishes, Standing(available, total, days)):
        assert fields.keys() == FIELDS[kind]


@given(amounts, spent, known)
def test_who_wants_no_warning_gets_none(available: int, total: int, days: int) -> None:
    assert warnings(Wishes(0, 0), Standing(available, total, days)) == []
