"""When a card is charged, and what a decline leads to."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.accounting.recharge import Pause, Reason, Situation, Terms, after_decline, obstacle

TERMS = Terms(threshold=1_000, amount_cents=500, month_cents_max=1200)


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (Situation(999), None),
        (Situation(-5_000), None),
        (Situation(1_000), Reason.ENOUGH),
        (Situation(0, coming=1_000), Reason.COMING),
        (Situation(0, coming=999), None),
        (Situation(0, month_cents=700), None),
        (Situation(0, month_cents=701), Reason.MONTH_MAX),
    ],
)
def test_a_card_is_charged_below_the_threshold_unless_it_is_coming_or_the_month_is_used_up(
    situation: Situation, expected: Reason | None
) -> None:
    assert obstacle(TERMS, situation) is expected


@given(st.lists(st.booleans(), max_size=40))
def test_a_month_never_passes_its_maximum(tries: list[bool]) -> None:
    spent = 0
    for is_paid in tries:
        if obstacle(TERMS, Situation(0, month_cents=spent)) is None and is_paid:
            spent += TERMS.amount_cents
    assert spent <= TERMS.month_cents_max


def test_declines_wait_longer_each_time_and_the_fourth_pauses() -> None:
    waits = [after_decline("card_declined", count) for count in (1, 2, 3, 4)]
    assert waits == [timedelta(hours=1), timedelta(hours=6), timedelta(hours=24), Pause.DECLINED]


def test_a_card_that_wants_its_owner_pauses_at_once() -> None:
    assert after_decline("authentication_required", 1) is Pause.AUTHENTICATION_REQUIRED
