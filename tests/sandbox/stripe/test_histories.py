"""Whatever happens, in whatever order: the books add up, and nothing is refunded that was not charged."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sandbox.stripe.errors import StripeError
from gateway.sandbox.stripe.objects import BalanceTransaction, Charge, Dispute, Event, Payout, Refund
from gateway.sandbox.stripe.world import World
from tests.sandbox.stripe.caller import Caller

CARDS = ("visa", "chargeDeclined", "createDispute", "createDisputeInquiry", "refundFail", "pendingRefund")
STEPS = st.one_of(
    st.tuples(st.just("charge"), st.sampled_from(CARDS), st.integers(50, 5_000)),
    st.tuples(st.just("refund"), st.integers(0, 9), st.integers(1, 5_000)),
    st.tuples(st.just("dispute"), st.integers(0, 9), st.booleans()),
    st.tuples(st.sampled_from(["win", "lose", "escalate"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["succeed", "fail"]), st.integers(0, 9)),
    st.tuples(st.just("payout"), st.booleans()),
    st.tuples(st.just("wait"), st.integers(1, 4 * 86_400)),
)


def take(caller: Caller, step: tuple[Any, ...]) -> None:
    """One step; what Stripe would refuse is refused, and changes nothing."""
    world = caller.stripe.world
    try:
        match step:
            case "charge", card, amount:
                paying = {"amount": str(amount), "currency": "usd", "confirm": "true"}
                caller.call("POST", "payment_intents", **paying, payment_method=f"pm_card_{card}")
            case "refund", which, amount:
                caller.call("POST", "refunds", charge=nth(world, Charge, which), amount=str(amount))
            case "dispute", which, inquiry:
                caller.order("charges/dispute", nth(world, Charge, which), inquiry=inquiry)
            case "payout", even_pending:
                caller.order("payouts/create", even_pending=even_pending)
            case "wait", seconds:
                caller.now_s += seconds
                world.at(caller.now_s).run_due()
            case ("succeed" | "fail") as verb, which:
                caller.order(f"refunds/{verb}", nth(world, Refund, which))
            case verb, which:
                caller.order(f"disputes/{verb}", nth(world, Dispute, which))
    except StripeError:
        return


def nth(world: World, kind: Any, which: int) -> str:
    ids = [thing.id for thing in world.newest_first(kind)]
    return ids[which % len(ids)] if ids else "none"


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_the_books_add_up_after_any_history(steps: list[tuple[Any, ...]]) -> None:
    caller = Caller()
    for step in steps:
        take(caller, step)
    world = caller.stripe.world
    movements = list(world.newest_first(BalanceTransaction))
    for charge in world.newest_first(Charge):
        refunds = [refund for refund in world.newest_first(Refund) if refund.charge == charge.id]
        standing = sum(refund.amount for refund in refunds if refund.status != "failed")
        assert charge.amount_refunded == standing <= charge.amount_captured
        assert charge.refunded == (standing == charge.amount and standing > 0)
        sources = {charge.id, *(refund.id for refund in refunds)}
        booked = sum(movement.amount for movement in movements if movement.source in sources)
        assert booked == charge.amount_captured - standing
    for dispute in world.newest_first(Dispute):
        lost = dispute.status in ("needs_response", "under_review", "lost")
        assert sum(each.amount for each in dispute.balance_transactions) == (-dispute.amount if lost else 0)
    for payout in world.newest_first(Payout):
        inside = [movement for movement in movements if world.payout_of.get(movement.id) == payout.id]
        assert sum(movement.net for movement in inside) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_an_event_shows_what_was_and_not_what_came_of_it(steps: list[tuple[Any, ...]]) -> None:
    caller = Caller()
    world = caller.stripe.world
    shown: dict[str, str] = {}
    for step in steps:
        take(caller, step)
        for event in world.newest_first(Event):
            assert shown.setdefault(event.id, repr(event)) == repr(event)


@settings(max_examples=20, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_the_same_history_gives_the_same_world(steps: list[tuple[Any, ...]]) -> None:
    first, second = Caller(), Caller()
    for step in steps:
        take(first, step)
        take(second, step)
    kinds = (Charge, Refund, Dispute, Payout, BalanceTransaction, Event)
    for kind in kinds:
        assert list(first.stripe.world.newest_first(kind)) == list(second.stripe.world.newest_first(kind))
