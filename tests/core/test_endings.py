import msgspec
import pytest

from gateway.core.calls.endings import Charge, Ended, ending
from gateway.core.calls.estimate import Basis, Estimate
from gateway.core.calls.meter import Reading
from gateway.core.calls.usage import ReportedUsage, Usage
from gateway.core.holds import Flag, Outcome
from gateway.core.pricing.rates import ModelRates

ROW = ModelRates(model="m", tiers={}, context_tokens=1000, output_tokens_max=100, image_tokens_max=0)
ESTIMATE = Estimate(amount=1, input_tokens_max=10, output_tokens_max=100, basis=Basis.BYTES)


def ended(
    status: int = 200,
    *,
    usage: dict[str, object] | None = None,
    unreadable: bool = False,
    complete: bool = True,
    failed: bool = False,
    text: str = "",
    cut: bool = False,
    final: bool = False,
    sent_any: bool = True,
    gone: bool = False,
    out_of_slices: bool = False,
) -> Ended:
    reading = Reading()
    reading.usage = msgspec.convert(usage, ReportedUsage) if usage else None
    reading.usage_unreadable, reading.complete, reading.failed = unreadable, complete, failed
    reading.usage_final = final
    if text:
        reading.delivered.add(text)
    return Ended(
        status=status,
        cut=cut,
        sent_any=sent_any,
        caller_gone=gone,
        reading=reading,
        is_out_of_slices=out_of_slices,
    )


GOOD: dict[str, object] = {"prompt_tokens": 10, "completion_tokens": 5}


@pytest.mark.parametrize(
    ("facts", "outcome", "charge", "flags"),
    [
        (ended(usage=GOOD), Outcome.EXACT, Charge.USAGE, ()),
        (ended(usage=GOOD, gone=True), Outcome.DRAINED, Charge.USAGE, ()),
        (ended(usage=GOOD, cut=True, final=True), Outcome.EXACT, Charge.USAGE, ()),
        (ended(usage=GOOD, cut=True, final=True, gone=True), Outcome.DRAINED, Charge.USAGE, ()),
        (ended(usage=GOOD, cut=True), Outcome.ESTIMATED, Charge.DELIVERED, (Flag.CUT,)),
        (ended(usage=GOOD, cut=True, gone=True), Outcome.ESTIMATED, Charge.DELIVERED, (Flag.CUT,)),
        (ended(usage=GOOD, failed=True), Outcome.ESTIMATED, Charge.DELIVERED, (Flag.FAILED,)),
        (ended(usage=GOOD, failed=True, final=True), Outcome.EXACT, Charge.USAGE, ()),
        (ended(0), Outcome.VOID, Charge.NOTHING, ()),
        (ended(0, cut=True), Outcome.VOID, Charge.NOTHING, ()),
        (ended(0, cut=True, gone=True), Outcome.VOID, Charge.NOTHING, (Flag.CUT,)),
        (ended(400), Outcome.VOID, Charge.NOTHING, ()),
        (ended(429, usage=GOOD), Outcome.VOID, Charge.NOTHING, ()),
        (ended(503, gone=True), Outcome.VOID, Charge.NOTHING, ()),
        (ended(302), Outcome.VOID, Charge.NOTHING, ()),
        (ended(), Outcome.ESTIMATED, Charge.HELD, (Flag.USAGE_MISSING,)),
        (ended(complete=False), Outcome.ESTIMATED, Charge.HELD, (Flag.USAGE_MISSING,)),
        (ended(unreadable=True), Outcome.ESTIMATED, Charge.HELD, (Flag.USAGE_ABSURD,)),
        (ended(complete=False, cut=True, text="hi"), Outcome.ESTIMATED, Charge.DELIVERED, (Flag.CUT,)),
        (ended(complete=False, cut=True, out_of_slices=True), Outcome.ESTIMATED, Charge.DELIVERED, (Flag.SLICED,)),
        (ended(usage=GOOD, cut=True, out_of_slices=True), Outcome.ESTIMATED, Charge.DELIVERED, (Flag.SLICED,)),
        (ended(complete=False, cut=True, gone=True), Outcome.ESTIMATED, Charge.DELIVERED, (Flag.CUT,)),
        (ended(complete=False, cut=True, sent_any=False), Outcome.VOID, Charge.NOTHING, (Flag.CUT,)),
        (ended(complete=False, failed=True), Outcome.VOID, Charge.NOTHING, (Flag.FAILED,)),
        (
            ended(complete=False, failed=True, text="hi"),
            Outcome.ESTIMATED,
            Charge.DELIVERED,
            (Flag.FAILED,),
        ),
    ],
)
def test_every_way_a_call_ends_has_one_charge(
    facts: Ended, outcome: Outcome, charge: Charge, flags: tuple[Flag, ...]
) -> None:
    end = ending(facts, ESTIMATE, ROW)
    assert (end.outcome, end.charge, end.flags) == (outcome, charge, flags)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": 10, "completion_tokens": -5},
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 11}},
        {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 6}},
        {"prompt_tokens": 2001, "completion_tokens": 5},
        {"prompt_tokens": 10, "completion_tokens": 201},
        {"completion_tokens": 5},
    ],
)
def test_absurd_usage_is_quarantined_under_the_hold(usage: dict[str, object]) -> None:
    end = ending(ended(usage=usage), ESTIMATE, ROW)
    assert (end.charge, end.flags) == (Charge.HELD, (Flag.USAGE_ABSURD,))


def test_zero_usage_is_not_missing_usage() -> None:
    end = ending(ended(usage={"prompt_tokens": 0, "completion_tokens": 0}), ESTIMATE, ROW)
    assert (end.outcome, end.charge, end.usage) == (Outcome.EXACT, Charge.USAGE, Usage())


def test_more_choices_may_use_more_output() -> None:
    end = ending(
        ended(usage={"prompt_tokens": 1, "completion_tokens": 400}),
        Estimate(amount=1, input_tokens_max=10, output_tokens_max=200, basis=Basis.BYTES),
        ROW,
    )
    assert end.charge is Charge.USAGE


def test_what_was_reported_before_a_cut_is_the_least_that_is_charged() -> None:
    end = ending(ended(usage=GOOD, cut=True), ESTIMATE, ROW)
    assert end.usage == Usage(input=10, output=5)
