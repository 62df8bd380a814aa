"""What is unusual: relative to one's own past, never below an amount that matters, never without a past."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.guard.anomaly import Bound, Rule, Rules, Spending, Subject, Verdict, Width, Window, judge, widen

RULES = Rules(burst=1000, burst_minutes=10, hour=Bound(5, 100), day=Bound(3, 200), known_min=3)
ACCOUNT = Subject("a")
KEY, OTHER_KEY, LOOSE_KEY = Subject("a", "m", "k1"), Subject("a", "m", "k2"), Subject("a", None, "k3")
MEMBER, OTHER_MEMBER = Subject("a", "m"), Subject("a", "n")

widths: st.SearchStrategy[Width] = st.sampled_from(["account", "member", "key"])
amounts = st.integers(0, 10**15)
windows = st.builds(Window, spent=amounts, usual_sum=amounts, known=st.integers(0, 24))
spendings = st.builds(Spending, burst=amounts, hour=windows, day=windows)
subjects = st.sampled_from([ACCOUNT, KEY, OTHER_KEY, LOOSE_KEY, MEMBER, OTHER_MEMBER])


def tripped(subject: Subject, spending: Spending) -> Rule | None:
    verdict = judge(subject, spending, RULES)
    return None if verdict is None else verdict.rule


@pytest.mark.parametrize(
    ("spending", "rule"),
    [
        (Spending(hour=Window(500, 300, 3)), None),  # exactly five times
        (Spending(hour=Window(501, 300, 3)), Rule.HOUR),
        (Spending(hour=Window(501, 200, 2)), None),  # two hours are no past
        (Spending(hour=Window(100, 3, 3)), None),  # too little to matter
        (Spending(hour=Window(101, 3, 3)), Rule.HOUR),
        (Spending(day=Window(900, 2100, 7)), None),
        (Spending(day=Window(901, 2100, 7)), Rule.DAY),
        (Spending(day=Window(901, 600, 2)), None),
        (Spending(burst=1000), None),
        (Spending(burst=1001), Rule.BURST),
    ],
)
def test_each_rule_trips_just_beyond_its_bound(spending: Spending, rule: Rule | None) -> None:
    assert tripped(KEY, spending) == rule


def test_a_burst_is_of_one_key_and_not_of_an_account_with_many() -> None:
    assert tripped(ACCOUNT, Spending(burst=1001)) is None


@pytest.mark.parametrize(
    ("width", "judged"),
    [
        ("account", {ACCOUNT}),
        ("member", {ACCOUNT, MEMBER, LOOSE_KEY}),
        ("key", {ACCOUNT, MEMBER, KEY, LOOSE_KEY}),
    ],
)
def test_what_is_not_put_in_review_alone_is_not_judged_alone(width: Width, judged: set[Subject]) -> None:
    rules = Rules(burst=1000, burst_minutes=10, hour=Bound(5, 100), day=Bound(3, 200), known_min=3, width=width)
    spending = Spending(hour=Window(10_000, 300, 3))
    assert {each for each in (ACCOUNT, MEMBER, KEY, LOOSE_KEY) if judge(each, spending, rules)} == judged


def test_without_a_burst_rule_no_burst_trips() -> None:
    rules = Rules(burst=0, burst_minutes=10, hour=Bound(5, 100), day=Bound(3, 200), known_min=3)
    assert judge(KEY, Spending(burst=10**15), rules) is None


@given(subjects, spendings, amounts)
def test_who_spends_more_is_never_less_suspicious(subject: Subject, spending: Spending, more: int) -> None:
    hour, day = (Window(each.spent + more, each.usual_sum, each.known) for each in (spending.hour, spending.day))
    larger = Spending(spending.burst + more, hour, day)
    assert tripped(subject, spending) is None or tripped(subject, larger) is not None


@given(subjects, st.integers(0, 10**12), st.integers(1, 24), st.integers(1, 7), st.integers(1, 24))
def test_whoever_goes_on_as_usual_never_trips(
    subject: Subject, hourly: int, hours: int, days: int, daily_hours: int
) -> None:
    daily = hourly * daily_hours
    steady = Spending(0, Window(hourly, hourly * hours, hours), Window(daily, daily * days, days))
    assert tripped(subject, steady) is None


@given(subjects, spendings)
def test_small_amounts_bother_nobody(subject: Subject, spending: Spending) -> None:
    hour = Window(spending.hour.spent % 101, spending.hour.usual_sum, spending.hour.known)
    day = Window(spending.day.spent % 201, spending.day.usual_sum, spending.day.known)
    small = Spending(spending.burst % 1001, hour, day)
    assert tripped(subject, small) is None


@given(subjects, spendings)
def test_a_verdict_says_how_much_more_than_what_was_spent(subject: Subject, spending: Spending) -> None:
    verdict = judge(subject, spending, RULES)
    if verdict is not None:
        assert verdict.spent > verdict.limit
        assert str(verdict.limit // 1_000_000) in verdict.text()


def test_a_verdict_is_told_in_credits_and_words() -> None:
    day = Verdict(Rule.DAY, 400_500_000, 300_000_000, 100_000_000, 1440)
    assert day.text() == "400 credits in the last 24 hours, usually 100 a day; 300 are let pass"
    burst = Verdict(Rule.BURST, 2_000_000, 1_000_000, 0, 10)
    assert burst.text() == "2 credits in the last 10 minutes; 1 are let pass"


@pytest.mark.parametrize(
    ("trips", "width", "reviewed"),
    [
        ([ACCOUNT, MEMBER, KEY], "key", [KEY]),
        ([ACCOUNT, MEMBER, KEY, OTHER_KEY], "key", [KEY, OTHER_KEY]),
        ([ACCOUNT, LOOSE_KEY, OTHER_MEMBER], "key", [LOOSE_KEY, OTHER_MEMBER]),
        ([ACCOUNT, MEMBER], "key", [MEMBER]),
        ([ACCOUNT], "key", [ACCOUNT]),
        ([ACCOUNT, MEMBER, KEY], "member", [MEMBER]),
        ([ACCOUNT, LOOSE_KEY], "member", [LOOSE_KEY]),
        ([KEY, LOOSE_KEY], "account", [ACCOUNT]),
        ([], "account", []),
    ],
)
def test_no_more_is_put_in_review_than_did_it_unless_told_so(
    trips: list[Subject], width: Width, reviewed: list[Subject]
) -> None:
    verdicts = {subject: Verdict(Rule.HOUR, 1, 0, 0, number) for number, subject in enumerate(trips)}
    chosen = widen(verdicts, width)
    assert set(chosen) == set(reviewed)
    assert all(chosen[subject] == verdicts[subject] for subject in chosen if subject in verdicts)


@given(st.lists(subjects, min_size=1), widths)
def test_whatever_trips_something_is_reviewed_and_nothing_of_it_twice(trips: list[Subject], width: Width) -> None:
    reviewed = widen({subject: Verdict(Rule.HOUR, 1, 0, 0, 60) for subject in trips}, width)
    assert reviewed
    for each in reviewed:
        assert each.key_id is None or Subject(each.account_id, each.member_id) not in reviewed or not each.member_id
