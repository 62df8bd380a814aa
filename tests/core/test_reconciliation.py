"""Reconciliation: what agrees, what does not, and by how much."""

from datetime import date

import pytest

from gateway.core.accounting.reconciliation import (
    Check,
    PaymentSums,
    Report,
    Tokens,
    Verdict,
    compare,
    in_words,
    margin_check,
    none_of,
    not_checked,
    outstanding_check,
    payment_checks,
    provider_usage,
)
from gateway.core.calls.usage import Usage
from gateway.core.pricing.provider_costs import ModelCost

PPM_MAX = 1000
CREDIT = 1_000_000


def wrong(checks: tuple[Check, ...]) -> list[str]:
    return [check.name for check in checks if check.verdict is Verdict.MISMATCH]


@pytest.mark.parametrize(
    ("expected", "found", "verdict"),
    [
        (100_000, 100_000, Verdict.OK),
        (100_000, 100_100, Verdict.OK),
        (100_000, 99_900, Verdict.OK),
        (100_000, 100_101, Verdict.MISMATCH),
        (-100_000, -100_100, Verdict.OK),
        (0, 0, Verdict.OK),
        (0, 1, Verdict.MISMATCH),
    ],
)
def test_a_thousandth_is_let_pass_and_no_more(expected: int, found: int, verdict: Verdict) -> None:
    check = compare("", "cents", expected, found, ppm_max=PPM_MAX)
    assert (check.verdict, check.difference) == (verdict, found - expected)


def test_the_share_is_of_what_was_expected() -> None:
    assert compare("", "cents", 2000, 2001, ppm_max=PPM_MAX).share_ppm == 500
    assert compare("", "cents", 0, 1, ppm_max=PPM_MAX).share_ppm is None


def test_two_mistakes_do_not_hide_each_other() -> None:
    stripe = {"pi_1": PaymentSums(500, 45, 0), "pi_2": PaymentSums(500, 45, 0)}
    books = {"pi_1": PaymentSums(400, 45, 0), "pi_2": PaymentSums(600, 45, 0)}
    checks = payment_checks(stripe, books, ppm_max=PPM_MAX)
    assert wrong(checks) == ["received through Stripe"]
    assert (checks[1].difference, checks[1].off) == (0, 200)
    assert "pi_1: 500 at Stripe, 400 in the books" in checks[1].notes


def test_a_missing_payment_is_missed_once_and_by_name_on_either_side() -> None:
    sums = PaymentSums(500, 45, 0)
    checks = payment_checks({"pi_1": sums, "pi_2": sums}, {"pi_2": sums, "pi_3": sums}, ppm_max=PPM_MAX)
    assert wrong(checks) == ["payments at Stripe"]
    assert checks[0].off == 2
    assert checks[0].notes == ("pi_1 is at Stripe and not in the books", "pi_3 is in the books and not at Stripe")


@pytest.mark.parametrize(
    ("books", "name"),
    [
        (PaymentSums(499, 45, 10), "received through Stripe"),
        (PaymentSums(500, 44, 10), "fees through Stripe"),
        (PaymentSums(500, 45, 11), "returned through Stripe"),
    ],
)
def test_each_kind_of_wrong_cents_has_its_check(books: PaymentSums, name: str) -> None:
    assert wrong(payment_checks({"pi": PaymentSums(500, 45, 10)}, {"pi": books}, ppm_max=PPM_MAX)) == [name]


def test_tokens_are_compared_by_model() -> None:
    provider = {"a": Tokens(110, 10, 2), "b": Tokens(90, 10, 1)}
    ours = {"a": Tokens(100, 10, 1), "b": Tokens(100, 10, 1)}
    check = provider_usage(provider, ours, ppm_max=PPM_MAX)
    assert (check.verdict, check.expected, check.found, check.off) == (Verdict.MISMATCH, 220, 220, 20)
    assert check.notes[0] == "a: 110 in, 10 out at OpenAI; 100 in, 10 out metered"


def test_a_model_that_only_one_side_knows_is_found() -> None:
    assert provider_usage({"a": Tokens(1, 1, 1)}, {}, ppm_max=PPM_MAX).verdict is Verdict.MISMATCH
    assert provider_usage({}, {"a": Tokens(1, 1, 1)}, ppm_max=PPM_MAX).verdict is Verdict.MISMATCH
    assert provider_usage({}, {}, ppm_max=PPM_MAX).verdict is Verdict.OK


def cost(model: str, charged: int, at_provider: int) -> ModelCost:
    return ModelCost(model, 1, charged, at_provider, Usage())


def test_every_model_must_bring_its_margin_but_for_rounding() -> None:
    costs = [
        cost("exact", 400 * CREDIT, 100 * CREDIT),
        cost("within a thousandth", 400 * CREDIT - 100_000, 100 * CREDIT),
        cost("a call of next to nothing", 1, 1),
        cost("free", 5 * CREDIT, 0),
    ]
    assert margin_check(costs, percent_min=400, ppm_max=PPM_MAX).verdict is Verdict.OK
    check = margin_check([*costs, cost("low", 399 * CREDIT, 100 * CREDIT)], percent_min=400, ppm_max=PPM_MAX)
    assert (check.verdict, check.off, check.notes) == (
        Verdict.MISMATCH,
        1,
        ("low: 399 credits for 100 credits, 399 %",),
    )


def test_what_customers_have_is_right_to_the_micro_credit() -> None:
    assert outstanding_check(70, granted=100, debited=30).verdict is Verdict.OK
    assert outstanding_check(10**12 + 1, granted=10**12, debited=0).verdict is Verdict.MISMATCH


def test_what_was_not_checked_is_no_agreement_and_no_mismatch() -> None:
    away, unset = not_checked("a", "down", is_outage=True), not_checked("b", "not configured", is_outage=False)
    report = Report(date(2026, 11, 20), is_over=True, checks=(away, unset, none_of("c", "accounts", ["wrong"])))
    assert report.outages == (away,)
    assert [check.name for check in report.mismatches] == ["c"]


def test_figures_are_told_in_the_words_of_their_unit() -> None:
    assert in_words(123_456, "cents") == "$1,234.56"
    assert in_words(-5, "cents") == "-$0.05"
    assert in_words(1_500_000, "µcr") == "1.5 credits"
