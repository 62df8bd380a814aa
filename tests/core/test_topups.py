"""What a purchase must have put into the ledger: a function of what Stripe shows now."""

import msgspec
import pytest

from gateway.core.accounting.ledger import Bucket, Buckets
from gateway.core.accounting.topups import (
    Dispute,
    Facts,
    Freeze,
    Mismatch,
    Order,
    Payment,
    Refund,
    Standing,
    facts_of,
    movements,
    state_of,
    target,
)
from tests.core.permutations import run

CREDIT = 1_000_000
ORDER = Order(amount_cents=5000, currency="usd", is_live=False, bonus=5_000 * CREDIT)


def paid(**changes: object) -> Payment:
    given: dict[str, object] = {
        "intent_id": "pi_1",
        "purchase_id": "p",
        "status": "succeeded",
        "received_cents": 5000,
        "currency": "usd",
        "is_live": False,
    }
    return msgspec.convert(given | changes, Payment)


def read(payment: Payment, *, tax: int = 0, promised: int = 0, freeze: Freeze = "account") -> Facts:
    return facts_of(payment, ORDER, tax_cents=tax, promised_cents=promised, freeze=freeze)


@pytest.mark.parametrize("start", range(0, 2000, 200))
def test_shuffled_repeated_and_lost_messages_end_alike(start: int) -> None:
    for seed in range(start, start + 200):
        run(seed)


def test_nothing_is_granted_before_the_money_is_there() -> None:
    assert target(ORDER, read(paid(status="processing", received_cents=0))) == Standing()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"received_cents": 4999}, "paid 4999"),
        ({"received_cents": 50}, "paid 50"),
        ({"currency": "eur"}, "paid in eur"),
        ({"is_live": True}, "test mode"),
    ],
)
def test_a_payment_that_is_not_what_was_sold_grants_nothing(changes: dict[str, object], why: str) -> None:
    with pytest.raises(Mismatch, match=why):
        read(paid(**changes))


def test_tax_is_never_credit() -> None:
    wanted = target(ORDER, read(paid(received_cents=5950), tax=950))
    assert (wanted.paid, wanted.tax) == (50_000 * CREDIT, 9_500 * CREDIT)
    made = movements(ORDER, Standing(), wanted, Buckets())
    assert made.buckets == Buckets(promo=5_000 * CREDIT, paid=50_000 * CREDIT)


def test_refunds_are_summed_from_those_that_did_not_fail() -> None:
    refunds = (Refund("re_1", 500, "succeeded"), Refund("re_2", 500, "failed"), Refund("re_3", 250, "pending"))
    assert read(paid(refunds=refunds)).refunded == 750


def test_a_refund_takes_its_share_of_the_whole_grant_from_the_bonus_first() -> None:
    full = movements(ORDER, Standing(), target(ORDER, read(paid())), Buckets())
    part = paid(refunds=(Refund("re_1", 500, "succeeded"),))
    made = movements(ORDER, full.standing, target(ORDER, read(part)), full.buckets)
    assert made.standing.refund_reversed == 5_500 * CREDIT
    assert made.buckets == Buckets(promo=0, paid=49_500 * CREDIT)


def test_refunds_and_disputes_together_take_no_more_than_was_granted() -> None:
    everything = paid(
        refunds=(Refund("re_1", 3000, "succeeded"),), disputes=(Dispute("du_1", 5000, "lost", withdrawn_cents=5000),)
    )
    wanted = target(ORDER, read(everything))
    assert wanted.reversed == ORDER.granted
    assert (wanted.refunded, wanted.withdrawn) == (30_000 * CREDIT, 50_000 * CREDIT)


def test_spent_credit_that_is_taken_back_is_owed_and_the_next_top_up_pays_it_first() -> None:
    bought = movements(ORDER, Standing(), target(ORDER, read(paid())), Buckets())
    spent = Buckets(paid=1_000 * CREDIT)
    lost = paid(disputes=(Dispute("du_1", 5000, "lost", withdrawn_cents=5000),))
    owing = movements(ORDER, bought.standing, target(ORDER, read(lost)), spent)
    assert owing.buckets == Buckets(debt=-54_000 * CREDIT)
    again = movements(ORDER, Standing(), target(ORDER, read(paid())), owing.buckets)
    assert again.buckets == Buckets(promo=1_000 * CREDIT)


def test_a_won_dispute_gives_back_what_it_took() -> None:
    bought = movements(ORDER, Standing(), target(ORDER, read(paid())), Buckets(paid=7))
    open_ = paid(disputes=(Dispute("du_1", 5000, "needs_response", withdrawn_cents=5000, fee_cents=1500),))
    taken = movements(ORDER, bought.standing, target(ORDER, read(open_)), bought.buckets)
    won = paid(disputes=(Dispute("du_1", 5000, "won", withdrawn_cents=0, fee_cents=1500),))
    given = movements(ORDER, taken.standing, target(ORDER, read(won)), taken.buckets)
    assert (taken.buckets, given.buckets) == (Buckets(paid=7), bought.buckets)


@pytest.mark.parametrize(("freeze", "withdrawn"), [("account", 0), ("amount", 5000)])
def test_an_open_dispute_counts_at_once_only_where_amounts_are_frozen(freeze: Freeze, withdrawn: int) -> None:
    disputed = paid(disputes=(Dispute("du_1", 5000, "needs_response"), Dispute("du_2", 100, "warning_needs_response")))
    assert read(disputed, freeze=freeze).withdrawn == withdrawn


def test_a_promised_refund_counts_before_stripe_shows_it() -> None:
    assert read(paid(), promised=700) == read(paid(refunds=(Refund("re_1", 700, "succeeded"),)))


def test_the_tax_of_a_refund_is_owed_no_more() -> None:
    refunded = paid(received_cents=5950, refunds=(Refund("re_1", 5950, "succeeded"),))
    made = movements(ORDER, Standing(), target(ORDER, read(refunded, tax=950)), Buckets())
    sums: dict[Bucket, int] = {}
    for movement in made.movements:
        for entry in movement.entries:
            sums[entry.bucket] = sums.get(entry.bucket, 0) + entry.amount
    assert {bucket for bucket, amount in sums.items() if amount} == set()


@pytest.mark.parametrize(
    ("session", "paid_status", "intent", "state"),
    [
        ("open", "unpaid", "", "open"),
        ("open", "unpaid", "requires_payment_method", "open"),
        ("complete", "unpaid", "processing", "processing"),
        ("complete", "unpaid", "requires_payment_method", "failed"),
        ("complete", "paid", "succeeded", "paid"),
        ("expired", "unpaid", "succeeded", "paid"),
        ("expired", "unpaid", "canceled", "expired"),
    ],
)
def test_the_state_follows_the_payment_before_the_page(session: str, paid_status: str, intent: str, state: str) -> None:
    assert state_of(session=session, paid=paid_status, intent=intent) == state
