"""Ten gateways and their breaker in virtual time: an outage, a slow brownout, a flapping upstream, and mere noise."""

import random
from itertools import cycle, pairwise

import pytest

from gateway.core.guard.breaker import Signal, State
from tests.core.fleet import POLICY, Answer, Simulation

OUTAGE_MS = (30_000, 90_000)
FLUSH_MS = 200
FINE = Answer(Signal.OK, 300)
FAILED = Answer(Signal.ERROR, 50)


def outage(now_ms: int, chance: random.Random) -> Answer:
    return FAILED if OUTAGE_MS[0] <= now_ms < OUTAGE_MS[1] else FINE


def noise(now_ms: int, chance: random.Random) -> Answer:
    return FAILED if chance.random() < 0.02 else FINE


def slow_brownout(now_ms: int, chance: random.Random) -> Answer:
    """From 2 % of failures to all of them within five minutes, each a timeout."""
    return Answer(Signal.TIMEOUT, 2_000) if chance.random() < max(0.02, min(1.0, now_ms / 300_000)) else FINE


def flapping(now_ms: int, chance: random.Random) -> Answer:
    """Two seconds up, four seconds down."""
    return FINE if now_ms % 6_000 < 2_000 else FAILED


@pytest.mark.parametrize("calls_per_s", [20, 500])
def test_an_outage_opens_it_within_the_window(calls_per_s: int) -> None:
    fleet = Simulation(outage, calls_per_s=calls_per_s).run(60_000)

    first = fleet.opened_at_ms()[0]
    assert OUTAGE_MS[0] < first <= OUTAGE_MS[0] + POLICY.window_ms
    every_gateway_knows_ms = first + FLUSH_MS + 100
    assert [each for each in fleet.failed_times_ms if each > every_gateway_knows_ms] == []


def test_few_calls_open_it_by_their_streak() -> None:
    fleet = Simulation(outage, calls_per_s=1).run(60_000)

    assert OUTAGE_MS[0] < fleet.opened_at_ms()[0] <= OUTAGE_MS[0] + 2 * POLICY.window_ms


@pytest.mark.parametrize("seed", range(3))
def test_the_fleet_probes_within_its_bound_and_sends_no_herd(seed: int) -> None:
    fleet = Simulation(outage, calls_per_s=500, seed=seed).run(150_000)

    assert fleet.probes_at_once_max <= POLICY.probes_max
    opened, closed = fleet.opened_at_ms(), fleet.closed_at_ms()
    assert len(closed) == 1, "it closes once, when upstream is back"
    assert OUTAGE_MS[1] <= closed[0] <= OUTAGE_MS[1] + POLICY.open_ms_max * (1 + POLICY.jitter) + 5_000
    during = [each for each in fleet.probe_times_ms if OUTAGE_MS[0] <= each < OUTAGE_MS[1]]
    assert len(during) <= POLICY.probes_max * len(opened)
    assert all(gateway.breaker.state is State.CLOSED for gateway in fleet.gateways)


def test_openings_in_a_row_last_longer_and_longer() -> None:
    fleet = Simulation(lambda now_ms, chance: FAILED, calls_per_s=200).run(180_000)

    gaps_ms = [after - before for before, after in pairwise(fleet.opened_at_ms())]
    assert gaps_ms[:4] == sorted(gaps_ms[:4])
    assert min(gaps_ms[4:]) >= POLICY.open_ms_max * (1 - POLICY.jitter)


@pytest.mark.parametrize("calls_per_s", [2, 50, 1000])
@pytest.mark.parametrize("seed", range(2))
def test_noise_never_opens_it(calls_per_s: int, seed: int) -> None:
    fleet = Simulation(noise, calls_per_s=calls_per_s, seed=seed).run(20_000_000 // max(calls_per_s, 50))

    assert fleet.opened_at_ms() == []
    assert fleet.refused == 0


def test_too_few_calls_open_it_by_no_rate_of_failures() -> None:
    def opened_at_ms(calls_per_s: int) -> list[int]:
        answers = cycle([FINE, FAILED, FAILED])
        return Simulation(lambda now_ms, chance: next(answers), calls_per_s=calls_per_s).run(60_000).opened_at_ms()

    assert opened_at_ms(1) == []
    assert opened_at_ms(10) != []


def test_gateways_that_act_alone_do_not_come_back_all_at_once() -> None:
    fleet = Simulation(outage, calls_per_s=1000, store_away=lambda now_ms: True).run(40_000)

    first = sorted(fleet.probe_times_ms)[: len(fleet.gateways)]
    assert max(first) - min(first) > POLICY.open_ms * POLICY.jitter / 2


def test_a_slow_brownout_opens_it_when_half_of_the_calls_fail_and_not_before() -> None:
    fleet = Simulation(slow_brownout, calls_per_s=100).run(200_000)

    first = fleet.opened_at_ms()[0]
    assert 0.40 <= first / 300_000 <= 0.60


def test_a_flapping_upstream_is_let_alone_most_of_the_time() -> None:
    fleet = Simulation(flapping, calls_per_s=200).run(600_000)

    assert len(fleet.failed_times_ms) < 0.1 * (fleet.sent + fleet.refused)
    assert fleet.probes_at_once_max <= POLICY.probes_max


def test_each_gateway_acts_alone_while_the_store_is_away() -> None:
    fleet = Simulation(outage, calls_per_s=500, store_away=lambda now_ms: now_ms >= 20_000).run(150_000)

    assert fleet.changes == [], "the store heard nothing of it"
    late = [each for each in fleet.failed_times_ms if each > OUTAGE_MS[0] + POLICY.window_ms]
    assert late == [], "every gateway opened its own"
    assert all(gateway.breaker.state is State.CLOSED for gateway in fleet.gateways)
    assert fleet.refused > 0


def test_what_was_decided_alone_is_told_when_the_store_is_back() -> None:
    fleet = Simulation(outage, calls_per_s=500, store_away=lambda now_ms: 20_000 <= now_ms < 60_000).run(62_000)

    assert fleet.store.breaker is not None
    assert fleet.store.breaker.state is not State.CLOSED
    assert all(gateway.refuses for gateway in fleet.gateways)


@pytest.mark.parametrize("success_ms", [300, 8_000])
def test_one_call_in_ten_that_fails_at_once_does_not_open_it_before_the_first_success(success_ms: int) -> None:
    def one_in_ten(now_ms: int, chance: random.Random) -> Answer:
        return FAILED if chance.random() < 0.1 else Answer(Signal.OK, success_ms)

    assert Simulation(one_in_ten, calls_per_s=300).run(30_000).opened_at_ms() == []


def test_callers_own_errors_never_open_it() -> None:
    fleet = Simulation(lambda now_ms, chance: Answer(Signal.NEUTRAL, 30), calls_per_s=500).run(30_000)

    assert fleet.opened_at_ms() == []
