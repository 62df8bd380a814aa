import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.money import AMOUNT_UCR_MAX, InvalidAmount, divide_half_up, format_credits, parse_credits


@given(st.integers(-AMOUNT_UCR_MAX, AMOUNT_UCR_MAX))
def test_every_amount_prints_and_reads_back_exactly(amount: int) -> None:
    assert parse_credits(format_credits(amount)) == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ten",
        "1.0000001",
        "NaN",
        "Infinity",
        "1e30",
        "9007199255",
        "0x10",
        "1.0000000000000000000000000000001",
        "1e-999999999",
        "1e999999999",
        "1_00",
        "\uff11\uff10",  # full-width digits
    ],
)
def test_what_is_not_an_amount_is_refused(text: str) -> None:
    with pytest.raises(InvalidAmount):
        parse_credits(text)


@given(st.integers(0, 10**20), st.integers(1, 10**9))
def test_a_half_rounds_up(numerator: int, denominator: int) -> None:
    rounded = divide_half_up(numerator, denominator)
    assert -denominator <= 2 * (numerator - rounded * denominator) < denominator
