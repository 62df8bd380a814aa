"""How holds end: captured, voided, lapsed, corrected; each once, with one event."""

from typing import Any
from uuid import uuid4

import pytest

from gateway.adapters.redis.credits import (
    AccountUnloaded,
    Credits,
    HoldConflict,
    HoldMissing,
    Reserved,
    Settled,
    ShardCold,
)
from gateway.adapters.redis.link import RedisLink, RedisScriptError
from gateway.core.calls.usage import Usage
from gateway.core.holds import Balance, Hold, HoldState, Outcome, Settlement, Terms
from gateway.core.money import AMOUNT_UCR_MAX
from gateway.core.shards import SHARD_KEYS, shard_of


class Bench:
    """One account with 1,000 µcr, and shorthand for what is done to its holds."""

    def __init__(self, credits: Credits, link: RedisLink) -> None:
        self.credits = credits
        self.link = link
        self.account_id = str(uuid4())
        self.terms = Terms(self.account_id, "key", "/v1/chat/completions", "gpt-4o-mini", "card", 1_700_000_000_000)
        self.shard = shard_of(self.account_id)
        self.keys = SHARD_KEYS[self.shard]

    async def open(self, amount: int = 100) -> Hold:
        hold = Hold(str(uuid4()), amount, "f", self.terms)
        assert isinstance(await self.credits.reserve(hold), Reserved)
        return hold

    async def run_out(self, hold: Hold) -> None:
        """Let the lease end now."""
        await self.link.command(b"ZADD", self.keys.leases, 0, hold.request_id)

    async def lapse(self, hold: Hold) -> object:
        return await self.credits.lapse(self.shard, hold.request_id, self.account_id)

    async def balance(self) -> Balance | None:
        return await self.credits.balance(self.account_id)

    async def events(self) -> list[tuple[str, dict[str, str]]]:
        entries: list[Any] = await self.link.command(b"XRANGE", self.keys.outbox, b"-", b"+")
        return [
            (entry_id.decode(), {fields[i].decode(): fields[i + 1].decode() for i in range(0, len(fields), 2)})
            for entry_id, fields in entries
        ]


@pytest.fixture
async def bench(credits: Credits, link: RedisLink) -> Bench:
    bench = Bench(credits, link)
    await credits.load(bench.account_id, 1_000, 0)
    return bench


def settlement(hold: Hold, cost: int, outcome: Outcome = Outcome.EXACT) -> Settlement:
    return Settlement(hold.request_id, hold.terms, outcome, hold.amount, cost, 1_700_000_001_000)


async def test_a_capture_debits_the_cost_frees_the_hold_and_tells_the_outbox(bench: Bench) -> None:
    hold = await bench.open(100)
    assert await bench.credits.capture(settlement(hold, 30)) == Settled(Balance(970, 0), (1, 1))
    [(event_id, event)] = await bench.events()
    assert event_id == "1-1"
    assert event.pop("data").startswith('{"request_id"')
    assert event == {
        "phase": "end",
        "kind": "capture",
        "request_id": hold.request_id,
        "account": bench.account_id,
        "cost": "30",
    }
    assert await bench.link.command(b"ZCARD", bench.keys.leases) == 0


async def test_a_cost_above_the_hold_is_captured_in_full(bench: Bench) -> None:
    hold = await bench.open(1_000)
    assert await bench.credits.capture(settlement(hold, 2_500)) == Settled(Balance(-1_500, 0), (1, 1))


async def test_a_repeated_capture_answers_with_the_first_event(bench: Bench) -> None:
    first, second = await bench.open(), await bench.open()
    await bench.credits.capture(settlement(first, 30))
    await bench.credits.capture(settlement(second, 40))
    assert await bench.credits.capture(settlement(first, 30)) == Settled(Balance(930, 0), (1, 1))
    assert len(await bench.events()) == 2


async def test_a_hold_ends_in_one_way_only(bench: Bench) -> None:
    captured, voided = await bench.open(), await bench.open()
    await bench.credits.capture(settlement(captured, 30))
    await bench.credits.void(settlement(voided, 0, Outcome.VOID))
    for attempt in (
        bench.credits.capture(settlement(captured, 31)),
        bench.credits.void(settlement(captured, 0, Outcome.VOID)),
        bench.credits.capture(settlement(voided, 0)),
    ):
        with pytest.raises(HoldConflict):
            await attempt
    assert await bench.balance() == Balance(970, 0)
    assert len(await bench.events()) == 2


async def test_a_void_frees_the_hold_for_nothing(bench: Bench) -> None:
    hold = await bench.open(100)
    for _ in range(2):
        assert await bench.credits.void(settlement(hold, 0, Outcome.VOID)) == Settled(Balance(1_000, 0), (1, 1))


async def test_a_hold_that_redis_does_not_know_is_missing(bench: Bench) -> None:
    refused = Hold(str(uuid4()), 5_000, "f", bench.terms)
    await bench.credits.reserve(refused)
    for hold in (Hold(str(uuid4()), 1, "f", bench.terms), refused):
        with pytest.raises(HoldMissing):
            await bench.credits.capture(settlement(hold, 1))
        with pytest.raises(HoldMissing):
            await bench.credits.renew(hold.request_id, bench.account_id, 1, Usage())
        with pytest.raises(HoldMissing):
            await bench.lapse(hold)
    assert await bench.credits.restore(refused)
    assert await bench.link.command(b"PTTL", bench.keys.hold(refused.request_id)) == -1
    assert await bench.credits.capture(settlement(refused, 1)) == Settled(Balance(999, 0), (1, 1))


async def test_a_renewed_lease_is_live_and_an_unrenewed_one_lapses_with_its_progress(bench: Bench) -> None:
    hold = await bench.open(100)
    await bench.run_out(hold)
    assert await bench.credits.renew(hold.request_id, bench.account_id, 25, Usage(output=5)) is HoldState.OPEN
    assert await bench.lapse(hold) is HoldState.OPEN
    await bench.run_out(hold)
    for _ in range(2):
        assert await bench.lapse(hold) == (1, 1)
    assert await bench.balance() == Balance(975, 0)
    [(_, event)] = await bench.events()
    assert event["kind"] == "lapse"
    assert (event["cost"], event["held"], event["usage"]) == ("25", "100", '{"output":5}')
    assert event["terms"].startswith('{"account_id"')
    assert await bench.credits.renew(hold.request_id, bench.account_id, 30, Usage()) is HoldState.LAPSED


async def test_progress_never_goes_back(bench: Bench) -> None:
    hold = await bench.open(100)
    await bench.credits.renew(hold.request_id, bench.account_id, 25, Usage(output=5))
    await bench.credits.renew(hold.request_id, bench.account_id, 10, Usage(output=2))
    await bench.run_out(hold)
    await bench.lapse(hold)
    assert await bench.balance() == Balance(975, 0)


@pytest.mark.parametrize(("cost", "correction"), [(60, "35"), (25, "0"), (10, "-15")])
async def test_a_late_capture_corrects_a_lapse_once(bench: Bench, cost: int, correction: str) -> None:
    hold = await bench.open(100)
    await bench.credits.renew(hold.request_id, bench.account_id, 25, Usage(output=5))
    await bench.run_out(hold)
    await bench.lapse(hold)
    for _ in range(2):
        assert await bench.credits.capture(settlement(hold, cost)) == Settled(Balance(1_000 - cost, 0), (1, 2))
    assert await bench.lapse(hold) is HoldState.CAPTURED
    [_, (event_id, event)] = await bench.events()
    assert (event_id, event["phase"], event["kind"], event["cost"]) == ("1-2", "correction", "capture", correction)


async def test_a_late_void_gives_back_what_the_lapse_charged(bench: Bench) -> None:
    hold = await bench.open(100)
    await bench.credits.renew(hold.request_id, bench.account_id, 25, Usage(output=5))
    await bench.run_out(hold)
    await bench.lapse(hold)
    for _ in range(2):
        assert await bench.credits.void(settlement(hold, 0, Outcome.VOID)) == Settled(Balance(1_000, 0), (1, 2))
    with pytest.raises(HoldConflict):
        await bench.credits.capture(settlement(hold, 25))


async def test_a_hold_restored_with_its_posted_lapse_is_corrected_not_charged_again(bench: Bench) -> None:
    hold = Hold(str(uuid4()), 100, "", bench.terms)
    assert await bench.credits.restore(hold, lapsed_cost=25)
    assert not await bench.credits.restore(hold)
    assert await bench.balance() == Balance(1_000, 0)
    assert await bench.lapse(hold) is HoldState.LAPSED
    assert await bench.credits.capture(settlement(hold, 60)) == Settled(Balance(965, 0), (1, 1))
    assert (await bench.events())[0][1]["phase"] == "correction"


async def test_only_what_postgres_has_is_trimmed_and_forgotten(bench: Bench) -> None:
    holds = [await bench.open(10) for _ in range(3)]
    still_open = await bench.open(10)
    for hold in holds:
        await bench.credits.capture(settlement(hold, 1))
    everything = [hold.request_id for hold in (*holds, still_open)]
    for _ in range(2):
        await bench.credits.ack(bench.shard, (1, 2), everything)
    assert [event_id for event_id, _ in await bench.events()] == ["1-3"]
    ttls = [await bench.link.command(b"PTTL", bench.keys.hold(request_id)) for request_id in everything]
    assert [ttl > 0 for ttl in ttls] == [True, True, False, False]
    assert await bench.credits.capture(settlement(holds[0], 1)) == Settled(Balance(997, 10), (1, 1))


async def test_a_correction_keeps_its_tombstone_until_postgres_has_it_too(bench: Bench) -> None:
    hold = await bench.open(100)
    await bench.run_out(hold)
    await bench.lapse(hold)
    await bench.credits.ack(bench.shard, (1, 1), [hold.request_id])
    await bench.credits.capture(settlement(hold, 7))
    await bench.credits.ack(bench.shard, (1, 1), [hold.request_id])
    assert await bench.link.command(b"PTTL", bench.keys.hold(hold.request_id)) == -1
    await bench.credits.ack(bench.shard, (1, 2), [hold.request_id])
    assert await bench.link.command(b"PTTL", bench.keys.hold(hold.request_id)) > 0


async def test_event_numbers_go_on_across_epochs(bench: Bench) -> None:
    hold = await bench.open(100)
    await bench.credits.capture(settlement(hold, 7))
    for _ in range(2):
        await bench.credits.rebuild(bench.shard, 2, 0, 0)
    assert (await bench.credits.shard_states())[bench.shard] == await bench.credits.shard_state(bench.shard)
    with pytest.raises(HoldMissing):
        await bench.credits.capture(settlement(hold, 7))
    with pytest.raises(AccountUnloaded):
        await bench.credits.restore(hold)
    await bench.credits.load(bench.account_id, 993, 0)
    other = await bench.open(100)
    assert await bench.credits.capture(settlement(other, 3)) == Settled(Balance(990, 0), (2, 2))


async def test_the_lease_of_a_hold_that_no_gateway_restored_is_dropped(bench: Bench) -> None:
    hold = await bench.open(100)
    await bench.credits.rebuild(bench.shard, 2, 0, 0)
    await bench.run_out(hold)
    with pytest.raises(HoldMissing):
        await bench.lapse(hold)
    assert await bench.link.command(b"EXISTS", bench.keys.leases, bench.keys.hold(hold.request_id)) == 0


async def test_another_accounts_hold_cannot_be_touched(bench: Bench) -> None:
    hold = await bench.open(100)
    other = Bench(bench.credits, bench.link)
    while other.shard != bench.shard:
        other = Bench(bench.credits, bench.link)
    await bench.credits.load(other.account_id, 1_000, 0)
    theirs = Hold(hold.request_id, 100, "f", other.terms)
    await bench.run_out(hold)
    for attempt in (
        bench.credits.reserve(theirs),
        bench.credits.renew(hold.request_id, other.account_id, 1, Usage()),
        bench.credits.capture(settlement(theirs, 1)),
        bench.credits.lapse(bench.shard, hold.request_id, other.account_id),
        bench.credits.restore(theirs),
    ):
        with pytest.raises(HoldConflict):
            await attempt
    assert await bench.balance() == Balance(1_000, 100)
    assert await other.balance() == Balance(1_000, 0)


async def test_a_debit_that_would_pass_the_largest_amount_writes_nothing(bench: Bench) -> None:
    await bench.credits.grant(bench.account_id, 1, -1_000)
    await bench.credits.grant(bench.account_id, 2, -AMOUNT_UCR_MAX)
    hold = Hold(str(uuid4()), 100, "f", bench.terms)
    await bench.credits.restore(hold)
    with pytest.raises(RedisScriptError, match="2\\^53"):
        await bench.credits.capture(settlement(hold, 1))
    assert await bench.events() == []
    assert await bench.balance() == Balance(-AMOUNT_UCR_MAX, 100)
    assert await bench.credits.capture(settlement(hold, 0)) == Settled(Balance(-AMOUNT_UCR_MAX, 0), (1, 1))


async def test_an_append_that_fails_leaves_everything_as_it_was(bench: Bench) -> None:
    hold = await bench.open(100)
    await bench.link.command(b"XADD", bench.keys.outbox, b"9-9", b"from", b"elsewhere")
    with pytest.raises(RedisScriptError):
        await bench.credits.capture(settlement(hold, 30))
    assert await bench.balance() == Balance(1_000, 100)
    state = await bench.credits.shard_state(bench.shard)
    assert state is not None
    assert state.seq == 0
    assert await bench.credits.renew(hold.request_id, bench.account_id, 1, Usage()) is HoldState.OPEN


async def test_an_older_rebuild_is_refused(bench: Bench) -> None:
    await bench.credits.rebuild(bench.shard, 3, 0, 0)
    with pytest.raises(ShardCold):
        await bench.credits.rebuild(bench.shard, 2, 0, 0)


async def test_a_repeated_rebuild_does_not_make_callers_wait_again(bench: Bench) -> None:
    await bench.credits.rebuild(bench.shard, 2, 0, 0)
    state = await bench.credits.shard_state(bench.shard)
    await bench.credits.rebuild(bench.shard, 2, 5, 60_000)
    assert await bench.credits.shard_state(bench.shard) == state


async def test_no_more_is_restored_than_can_be_counted(bench: Bench) -> None:
    await bench.open(100)
    with pytest.raises(RedisScriptError, match="held would pass"):
        await bench.credits.restore(Hold(str(uuid4()), AMOUNT_UCR_MAX, "f", bench.terms))
    assert await bench.balance() == Balance(1_000, 100)
