"""Which rate card is in force when."""

from datetime import date

import pytest

from gateway.core.pricing.rates import RateCard, Rounding
from gateway.core.pricing.schedule import Schedule, starts_ms


def card(name: str, day: date) -> RateCard:
    return RateCard(name=name, hash="", effective_from=day, rounding=Rounding.EXACT, rows={}, aliases={})


SPRING, SUMMER, AUTUMN = date(2027, 3, 1), date(2027, 6, 1), date(2027, 9, 1)
# Their names sort otherwise than their days.
CARDS = Schedule([card("c", SPRING), card("a", SUMMER), card("b", AUTUMN)])


@pytest.mark.parametrize(
    ("now_ms", "name"),
    [
        (starts_ms(SPRING), "c"),
        (starts_ms(SUMMER) - 1, "c"),
        (starts_ms(SUMMER), "a"),
        (starts_ms(AUTUMN) - 1, "a"),
        (starts_ms(AUTUMN), "b"),
        (starts_ms(date(2099, 1, 1)), "b"),
    ],
)
def test_the_card_in_force_is_the_newest_whose_day_has_come(now_ms: int, name: str) -> None:
    assert CARDS.at(now_ms).name == name


def test_before_the_first_day_the_first_card_is_in_force() -> None:
    assert CARDS.at(0).name == "c"


def test_of_two_cards_of_one_day_the_later_name_is_in_force() -> None:
    assert Schedule([card("x-2", SPRING), card("x-1", SPRING)]).at(starts_ms(SUMMER)).name == "x-2"


def test_cards_whose_time_is_over_are_not_kept() -> None:
    assert [each.name for each in CARDS.from_now_on(starts_ms(SUMMER))] == ["a", "b"]
