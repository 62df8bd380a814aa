"""Recovery: after any loss Redis is told anew, and not a micro-credit is counted twice or forgotten."""

import asyncio

import msgspec
import pytest

from gateway.adapters.recovery import RESTORE_COUNT, Recovery
from gateway.adapters.redis.credits import AccountUnloaded, Credits, HoldMissing, ShardCold
from gateway.adapters.redis.scripts import Scripts
from gateway.adapters.redis.stored_holds import read_hold
from gateway.core.calls.usage import Usage
from gateway.core.holds import Flag, Hold, HoldState, Settlement
from gateway.core.money import MicroCredits
from gateway.core.shards import SHARD_KEYS, SHARDS, shard_of
from gateway.resources import shipped
from gateway.workers.sweeper import Sweeper
from tests.books import new_id, settlement
from tests.books_redis import Desk


async def require_equal(desk: Desk, account_id: str, balance: int, held: int = 0) -> None:
    known = await desk.credits.balance(account_id)
    assert known is not None
    assert (known.balance, known.held) == (balance, held)


async def test_a_new_install_is_ready_at_once(desk: Desk) -> None:
    account = await desk.books.account(grant=100)
    await desk.open_hold(settlement(account.id, 10))
    assert await desk.rebuilder.step() == 0
    states = await desk.credits.shard_states()
    assert [state.epoch for state in states if state] == [1] * SHARDS


async def test_an_account_is_loaded_with_what_postgres_has(desk: Desk) -> None:
    account = await desk.books.account(grant=100)
    await asyncio.gather(*(desk.recovery.load_account(account.id) for _ in range(20)))
    await require_equal(desk, account.id, 100)
    await desk.serve(settlement(account.id, 30))
    await desk.recovery.load_account(account.id)
    await require_equal(desk, account.id, 70)


async def test_an_unknown_account_is_not_loaded(desk: Desk) -> None:
    with pytest.raises(AccountUnloaded):
        await desk.recovery.load_account(new_id())


async def test_without_postgres_an_account_is_not_loaded(desk: Desk) -> None:
    account = await desk.books.account(grant=100)
    await desk.books.pool.close()
    with pytest.raises(ShardCold):
        await desk.recovery.load_account(account.id)


async def test_an_emptied_redis_is_rebuilt_from_postgres(desk: Desk) -> None:
    account = await desk.books.account(grant=100)
    await desk.serve(settlement(account.id, 30))
    poster = desk.poster()
    await desk.post_all(poster)
    await desk.lose_redis()
    with pytest.raises(ShardCold):
        await desk.open_hold(settlement(account.id, 5))
    assert await desk.rebuilder.step() == SHARDS
    await desk.serve(settlement(account.id, 5))
    await require_equal(desk, account.id, 65)
    await desk.post_all(poster)
    await poster.close()
    assert await desk.books.balance(account) == 65
    assert poster.gaps_total == 0


async def test_what_stands_in_the_outbox_is_posted_before_any_balance_is_loaded(desk: Desk) -> None:
    account = await desk.books.account(grant=100)
    for _ in range(3):
        await desk.serve(settlement(account.id, 10))
    await desk.recovery.mark_for_rebuild([shard_of(account.id)])
    with pytest.raises(ShardCold):
        await desk.recovery.load_account(account.id)
    assert await desk.rebuilder.step() == 1
    assert await desk.books.balance(account) == 70
    await desk.recovery.load_account(account.id)
    await require_equal(desk, account.id, 70)
    assert await desk.books.outbox.length(range(SHARDS)) == 0


async def test_open_holds_outlive_a_rebuild_with_their_progress(desk: Desk) -> None:
    account = await desk.books.account(grant=100)
    call = settlement(account.id, 30)
    await desk.open_hold(call)
    await desk.credits.renew(call.request_id, account.id, 7, Usage(input=7))
    await desk.recovery.mark_for_rebuild([shard_of(account.id)])
    assert await desk.rebuilder.step() == 1
    await require_equal(desk, account.id, 100, held=30)
    keys = SHARD_KEYS[shard_of(account.id)]
    stored = read_hold(await desk.link.command(b"GET", keys.hold(call.request_id)))
    assert stored.opened()[0] == 7
    await desk.credits.capture(call)
    await require_equal(desk, account.id, 70)


@pytest.mark.parametrize(
    "line", [b"nonsense", b"x open a 1 f 10 0 {} {}", b"1 open a 1 f 10 0 {} {}", b"1 open a 1 f 10 0"]
)
async def test_a_hold_that_nobody_can_read_keeps_no_shard_from_its_rebuild(desk: Desk, line: bytes) -> None:
    account = await desk.books.account(grant=100)
    garbled, whole = settlement(account.id, 20), settlement(account.id, 30)
    for call in (garbled, whole):
        await desk.open_hold(call)
    await desk.link.command(b"SET", SHARD_KEYS[shard_of(account.id)].hold(garbled.request_id), line)
    await desk.recovery.mark_for_rebuild([shard_of(account.id)])
    assert await desk.rebuilder.step() == 1
    await require_equal(desk, account.id, 100, held=30)
    await desk.credits.restore(Hold(garbled.request_id, 20, "f", garbled.terms))  # as its gateway does
    await desk.credits.capture(garbled)
    await require_equal(desk, account.id, 80, held=30)


async def test_open_holds_of_an_account_that_postgres_lost_keep_no_shard_from_its_rebuild(desk: Desk) -> None:
    account = await desk.books.account(grant=100)
    await desk.open_hold(settlement(account.id, 30))
    shard = shard_of(account.id)
    lost_id = next(each for each in iter(new_id, "") if shard_of(each) == shard)
    await desk.credits.load(lost_id, 100, 0)
    call = settlement(lost_id, 20)
    await desk.credits.reserve(Hold(call.request_id, 20, "f", call.terms))
    await desk.recovery.mark_for_rebuild([shard])
    assert await desk.rebuilder.step() == 1
    await require_equal(desk, account.id, 100, held=30)
    assert await desk.link.command(b"ZCARD", SHARD_KEYS[shard].leases) == 1


async def test_a_dead_gateways_progress_outlives_a_sweep_in_the_middle_of_a_rebuild(desk: Desk) -> None:
    account = await desk.books.account(grant=100)
    call, shard = settlement(account.id, 30), shard_of(account.id)
    await desk.open_hold(call)
    await desk.credits.renew(call.request_id, account.id, 7, Usage(output=7))
    await desk.link.command(b"ZADD", SHARD_KEYS[shard].leases, 0, call.request_id)
    await desk.recovery.mark_for_rebuild([shard])
    await desk.credits.rebuild(shard, 2, 0, 3_600_000)  # it has just begun
    sweeper = Sweeper(desk.credits, desk.recovery.load_account, batch_max=10)
    assert await sweeper.step() == 0
    assert await desk.rebuilder.step() == 1
    await require_equal(desk, account.id, 100, held=30)
    await desk.link.command(b"ZADD", SHARD_KEYS[shard].leases, 0, call.request_id)
    assert await sweeper.step() == 1
    await require_equal(desk, account.id, 93)


async def test_an_account_that_redis_cannot_read_keeps_no_shard_from_its_rebuild(desk: Desk) -> None:
    """Nor does a lease of what is no request."""
    broken, account = await desk.books.account(grant=100), await desk.books.account(grant=100)
    for each in (broken, account):
        await desk.open_hold(settlement(each.id, 30))
    shards = {shard_of(broken.id), shard_of(account.id)}
    await desk.link.command(b"SET", SHARD_KEYS[shard_of(broken.id)].account(broken.id), b"no hash")
    await desk.link.command(b"ZADD", SHARD_KEYS[shard_of(account.id)].leases, 0, b"lost")
    await desk.recovery.mark_for_rebuild(list(shards))
    assert await desk.rebuilder.step() == len(shards)
    await require_equal(desk, account.id, 100, held=30)


class Busy(Credits):
    """Credits beside which, as soon as a hold was carried over, a gateway carries over one of its own and ends it."""

    ending: Settlement | None = None

    async def restore(
        self, hold: Hold, *, lapsed_cost: MicroCredits | None = None, lease_ms: int | None = None
    ) -> bool:
        restored = await super().restore(hold, lapsed_cost=lapsed_cost, lease_ms=lease_ms)
        call, self.ending = self.ending, None
        if call is not None:
            await super().restore(Hold(call.request_id, call.held, "", call.terms))
            await self.capture(call)
        return restored


async def test_what_a_gateway_ended_during_a_rebuild_is_not_forgotten_by_it(desk: Desk) -> None:
    account = await desk.books.account(grant=10**6)
    calls = [settlement(account.id, 30) for _ in range(RESTORE_COUNT + 1)]
    for call in calls:
        await desk.open_hold(call)
    keys = SHARD_KEYS[shard_of(account.id)]
    (last,) = await desk.link.command(b"ZRANGE", keys.leases, -1, -1)
    ended = next(call for call in calls if call.request_id == last.decode())
    busy = Busy(desk.link, Scripts(shipped("lua")), lease_ms=60_000, refusal_ttl_ms=1000, tombstone_ttl_ms=60_000)
    busy.ending = ended
    recovery = Recovery(desk.books.pool, desk.books.ledger, busy, desk.books.outbox, desk.link, grace_ms=0)
    await recovery.mark_for_rebuild([shard_of(account.id)])
    assert await recovery.rebuild_where_needed() == [shard_of(account.id)]
    await busy.capture(ended)  # told again, as after an answer that was lost
    await require_equal(desk, account.id, 10**6 - 30, held=30 * RESTORE_COUNT)


async def test_a_hold_that_ended_in_postgres_does_not_come_back_with_an_older_redis(desk: Desk) -> None:
    account = await desk.books.account(grant=100)
    call = settlement(account.id, 30)
    await desk.open_hold(call)
    before = await desk.snapshot(account.id)
    await desk.credits.capture(call)
    poster = desk.poster()
    await desk.post_all(poster)
    await poster.close()
    await desk.roll_back(account.id, before)
    assert await desk.rebuilder.step() == 1
    await desk.recovery.load_account(account.id)
    await require_equal(desk, account.id, 70)
    with pytest.raises(HoldMissing):
        await desk.credits.capture(call)
    assert await desk.books.ledger.ended([call.request_id]) == {call.request_id}


async def test_a_lapse_that_redis_forgot_is_still_corrected_by_its_late_settlement(desk: Desk) -> None:
    account = await desk.books.account(grant=100)
    call = settlement(account.id, 30)
    hold = await desk.open_hold(call)
    await desk.credits.renew(call.request_id, account.id, 10, Usage(input=1), lease_ms=1)
    while await desk.credits.lapse(shard_of(account.id), call.request_id, account.id) is HoldState.OPEN:
        await asyncio.sleep(0.001)
    poster = desk.poster()
    await desk.post_all(poster)
    await desk.lose_redis()
    await desk.rebuilder.step()
    await desk.recovery.load_account(account.id)
    await require_equal(desk, account.id, 90)
    lapses = await desk.books.ledger.lapses([call.request_id])
    await desk.credits.restore(hold, lapsed_cost=lapses[call.request_id])
    late = msgspec.structs.replace(call, flags=(Flag.LATE,))
    await desk.credits.capture(late)
    await desk.post_all(poster)
    await poster.close()
    await require_equal(desk, account.id, 70)
    assert await desk.books.balance(account) == 70
    await desk.books.require_sound()


async def test_a_rebuild_that_was_broken_off_is_done_again(desk: Desk) -> None:
    account = await desk.books.account(grant=100)
    await desk.serve(settlement(account.id, 30))
    raised = "UPDATE shard SET epoch = epoch + 1, is_rebuilding = true WHERE id = $1"
    await desk.books.pool.execute(raised, shard_of(account.id))
    assert await desk.rebuilder.step() == 1
    await desk.recovery.load_account(account.id)
    await require_equal(desk, account.id, 70)


async def test_two_rebuilders_at_once_rebuild_once(desk: Desk) -> None:
    await desk.lose_redis()
    done = await asyncio.gather(*(desk.rebuilder.step() for _ in range(4)))
    assert sum(done) == SHARDS
    assert [state.epoch for state in await desk.books.ledger.shards()] == [2] * SHARDS


async def test_a_redis_further_than_a_restored_postgres_gets_a_later_epoch(desk: Desk) -> None:
    await desk.books.redis.hset(SHARD_KEYS[5].shard, "epoch", "9")
    assert await desk.rebuilder.step() == 1
    assert (await desk.books.ledger.shards())[5].epoch == 10


async def test_a_balance_read_before_a_rebuild_is_not_loaded_after_it(desk: Desk) -> None:
    account = await desk.books.account(grant=100)
    with pytest.raises(ShardCold):
        await desk.credits.load(account.id, 1_000_000, 1, epoch=0)
    assert await desk.credits.balance(account.id) is None


async def test_without_redis_or_postgres_a_rebuild_waits(desk: Desk) -> None:
    await desk.lose_redis()
    await desk.link.close()
    assert await desk.rebuilder.step() == 0
    await desk.link.open()
    assert await desk.rebuilder.step() == SHARDS
    await desk.books.pool.close()
    assert await desk.rebuilder.step() == 0
    assert desk.rebuilder.failures_total == 2
