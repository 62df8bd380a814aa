"""Double entry: every movement balances, and moves the account by exactly what it says."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.accounting.ledger import (
    Bucket,
    Buckets,
    Entries,
    entries_for_capture,
    entries_for_correction,
    entries_for_grant,
    taken_by,
)
from gateway.core.accounting.posting import Claim, DeadLetter, Event, Known, Plan, Position, plan
from gateway.core.holds import Outcome, Phase, Settlement, Terms

ACCOUNT = "0197a3c2-0000-7000-8000-000000000001"
amounts = st.integers(0, 2**60) | st.integers(0, 20)
buckets_of_accounts = st.builds(Buckets, amounts, amounts, amounts.map(lambda owed: -owed))


def moved(entries: Entries) -> int:
    return Buckets().after(entries).total


def by_bucket(entries: Entries) -> dict[str, int]:
    return {entry.bucket.value: entry.amount for entry in entries}


def require_sound(entries: Entries, moves: int) -> None:
    assert sum(entry.amount for entry in entries) == 0
    assert all(entry.amount for entry in entries)
    assert len({entry.bucket for entry in entries}) == len(entries)
    assert moved(entries) == moves


@given(amounts, st.data(), buckets_of_accounts)
def test_a_capture_balances_and_moves_the_account_by_its_cost(cost: int, data: st.DataObject, has: Buckets) -> None:
    rounding = data.draw(st.integers(0, cost))
    entries = entries_for_capture(cost, rounding, has)
    require_sound(entries, -cost)
    left = has.after(entries)
    assert left.promo >= 0
    assert left.paid >= 0
    assert left.paid == has.paid or left.promo == 0
    assert left.debt == has.debt or left.promo == left.paid == 0
    said = by_bucket(entries)
    assert said.get("rounding", 0) <= rounding
    assert said.get("promotions", 0) == has.promo - left.promo


@given(st.integers(1, 2**60), buckets_of_accounts)
def test_a_grant_balances_pays_debt_first_and_is_never_revenue(amount: int, has: Buckets) -> None:
    entries = entries_for_grant(amount, has)
    require_sound(entries, amount)
    left = has.after(entries)
    assert left.promo == has.promo or left.debt == 0
    assert "revenue" not in by_bucket(entries)


@given(st.integers(-(2**60), 2**60), amounts, buckets_of_accounts, buckets_of_accounts)
def test_a_correction_balances_whichever_way_it_goes(
    charged: int, rounding: int, has: Buckets, before: Buckets
) -> None:
    taken = Buckets(-before.promo, -before.paid, before.debt)
    entries = entries_for_correction(charged, rounding, has, taken)
    require_sound(entries, -charged)
    left = has.after(entries)
    assert left.debt <= 0
    if charged < 0:
        assert left.paid - has.paid <= before.paid - before.debt  # no gift becomes money that can be paid back


@given(amounts, buckets_of_accounts)
def test_a_charge_given_back_at_once_restores_every_bucket(cost: int, has: Buckets) -> None:
    charge = entries_for_capture(cost, 0, has)
    after = has.after(charge)
    back = entries_for_correction(-cost, 0, after, taken_by(charge))
    if has.debt == 0:
        assert after.after(back) == has
        assert sorted((e.bucket, -e.amount) for e in back) == sorted((e.bucket, e.amount) for e in charge)
    assert after.after(back).total == has.total


def test_promotional_credit_is_never_revenue() -> None:
    has = Buckets().after(entries_for_grant(100, Buckets()))
    assert by_bucket(entries_for_capture(60, 10, has)) == {"promo": -60, "promotions": 60}


def test_rounding_is_taken_from_what_would_be_revenue() -> None:
    assert by_bucket(entries_for_capture(10, 4, Buckets(promo=8, paid=50))) == {
        "promo": -8,
        "paid": -2,
        "promotions": 8,
        "rounding": 2,
    }


@pytest.mark.parametrize("rounding", [-1, 11])
def test_rounding_outside_the_cost_is_refused(rounding: int) -> None:
    with pytest.raises(ValueError, match="not within the cost"):
        entries_for_capture(10, rounding, Buckets())


@pytest.mark.parametrize("amount", [0, -1])
def test_a_grant_of_nothing_is_refused(amount: int) -> None:
    with pytest.raises(ValueError, match="more than nothing"):
        entries_for_grant(amount, Buckets())


def test_every_bucket_has_one_name() -> None:
    assert len(set(Bucket)) == len(Bucket.__members__)


# Posting ------------------------------------------------------------------------------------------------------------


def event(number: int, *, seq: int | None = None, epoch: int = 1, kind: str = "capture", cost: int = 10) -> Event:
    """The event of request `number`; its content is told apart by kind and cost."""
    request_id = f"0197a3c2-0000-7000-8000-{number:012d}"
    outcome = {"capture": Outcome.EXACT, "void": Outcome.VOID, "lapse": Outcome.LAPSED}[kind]
    terms = Terms(ACCOUNT, "key_1", "/v1/embeddings", "m", "card@1", 1)
    return Event(
        shard=24,
        position=Position(epoch, seq or number),
        phase=Phase.END,
        kind=kind,
        request_id=request_id,
        account_id=ACCOUNT,
        charged=cost,
        settlement=Settlement(request_id, terms, outcome, 10, cost, 1),
        fingerprint=f"{kind} {cost}".encode(),
        payload="{}",
    )


def known() -> Known:
    return Known(
        epochs={24: 1}, buckets={ACCOUNT: Buckets(promo=1000)}, claims={}, taken={}, positions={24: Position(1, 0)}
    )


ids = itertools.count(1)


def posted(*events: Event | DeadLetter, start: Known | None = None) -> tuple[Plan, Known]:
    state = start or known()
    return plan(events, state, lambda: f"transfer {next(ids)}"), state


def charged(made: Plan) -> int:
    return sum(line.charged for line in made.lines)


def test_the_same_event_again_changes_nothing() -> None:
    made, state = posted(event(1), event(1), event(1))
    assert (len(made.lines), made.repeated, made.dead_letters, made.repaid) == (1, 2, [], {})
    assert state.buckets[ACCOUNT].total == 990


def test_a_missing_number_is_reported_and_what_follows_is_posted() -> None:
    made, _ = posted(event(1), event(3))
    assert [letter.reason for letter in made.dead_letters] == ["gap"]
    assert len(made.lines) == 2


def test_numbers_go_on_across_epochs() -> None:
    made, _ = posted(event(1), event(2, epoch=2))
    assert made.dead_letters == []


def test_another_event_under_a_number_that_was_posted_shows_a_redis_that_was_rolled_back() -> None:
    made, _ = posted(event(1), event(2), event(3, seq=2))
    assert made.rolled_back == {24}
    assert len(made.lines) == 3


def test_one_request_with_two_different_ends_is_a_conflict() -> None:
    made, _ = posted(event(1), event(1, seq=2, cost=11))
    assert [letter.reason for letter in made.dead_letters] == ["conflict"]
    assert charged(made) == 10


def test_a_capture_that_redis_made_twice_is_given_back_there() -> None:
    made, _ = posted(event(1), event(1, seq=2))
    assert (charged(made), made.repaid) == (10, {ACCOUNT: 10})


def test_what_an_older_epoch_debited_is_not_given_back_since_its_balance_is_gone() -> None:
    state = known()
    state.epochs = {24: 2}
    made, _ = posted(event(1), event(1, seq=2), start=state)
    assert (charged(made), made.repaid) == (10, {})


def test_a_late_settlement_that_redis_took_for_an_end_corrects_the_lapse() -> None:
    made, _ = posted(event(1, kind="lapse", cost=4), event(1, seq=2, cost=10))
    assert [(line.phase, line.charged) for line in made.lines] == [(Phase.END, 4), (Phase.CORRECTION, 6)]
    assert made.repaid == {ACCOUNT: 4}


def test_a_late_void_gives_back_what_the_lapse_charged() -> None:
    made, state = posted(event(1, kind="lapse", cost=4), event(1, seq=2, kind="void", cost=0))
    assert charged(made) == 0
    assert state.buckets[ACCOUNT] == Buckets(promo=1000)


def test_a_lapse_is_corrected_once() -> None:
    made, _ = posted(event(1, kind="lapse", cost=4), event(1, seq=2), event(1, seq=3))
    assert charged(made) == 10
    assert made.repaid == {ACCOUNT: 4 + 10}


def test_a_hold_that_ended_and_lapses_after_a_rebuild_is_charged_once() -> None:
    state = known()
    state.claims[event(1).request_id, Phase.END] = Claim("capture", Position(0, 7), b"capture 10")
    made, _ = posted(event(1, kind="lapse", cost=4), start=state)
    assert (made.lines, made.repaid, made.dead_letters) == ([], {ACCOUNT: 4}, [])


def test_an_unknown_account_is_a_dead_letter() -> None:
    state = known()
    state.buckets = {}
    made, _ = posted(event(1), start=state)
    assert [letter.reason for letter in made.dead_letters] == ["account_unknown"]
