"""Any sequence of commands, each sent twice, leaves Redis where a dictionary says it should be."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar
from uuid import UUID

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from gateway.adapters.redis.credits import Credits, CreditsError, HoldConflict, HoldMissing, Refused, Reserved, Settled
from gateway.adapters.redis.link import RedisLink, RedisScriptError
from gateway.adapters.redis.scripts import Scripts
from gateway.core.calls.usage import Usage
from gateway.core.holds import Balance, Hold, HoldState, Outcome, Settlement, Terms
from gateway.core.money import AMOUNT_UCR_MAX
from gateway.core.shards import SHARD_KEYS, shard_of
from gateway.resources import shipped

# Two accounts of one shard, so that their events mix, and one of another.
ACCOUNTS = ["00000000-0000-7000-8000-000000000000"]
ACCOUNTS += [next(a for a in (str(UUID(int=i)) for i in range(1, 10**4)) if shard_of(a) == shard_of(ACCOUNTS[0]))]
ACCOUNTS += [next(a for a in (str(UUID(int=i)) for i in range(1, 10**4)) if shard_of(a) != shard_of(ACCOUNTS[0]))]
SHARDS_USED = sorted({shard_of(account_id) for account_id in ACCOUNTS})

small = st.integers(0, 100)
amounts = small | st.integers(0, AMOUNT_UCR_MAX) | st.integers(AMOUNT_UCR_MAX - 2, AMOUNT_UCR_MAX + 2)
accounts = st.sampled_from(ACCOUNTS)


class Request(msgspec.Struct):
    """What the model knows of one request id."""

    hold: Hold
    state: HoldState
    epoch: int
    answer: Refused | None = None
    progress: int = 0
    cost: int = 0
    event: tuple[int, int] = (0, 0)


class Account(msgspec.Struct):
    balance: int = 0
    credit_seq: int = 0


class Model(RuleBasedStateMachine):
    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.link = RedisLink(self.url, command_timeout_ms=5000)
        self.runner.run(self.link.open())
        self.credits = Credits(
            self.link, Scripts(shipped("lua")), lease_ms=60_000, refusal_ttl_ms=60_000, tombstone_ttl_ms=60_000
        )
        self.accounts = {account_id: Account() for account_id in ACCOUNTS}
        self.requests: dict[str, Request] = {}
        self.seq = dict.fromkeys(SHARDS_USED, 0)
        self.acked = dict.fromkeys(SHARDS_USED, 0)
        self.epoch = 1
        self.runner.run(self._start())

    async def _start(self) -> None:
        await self.link.command(b"FLUSHDB")
        await self._rebuild_all()

    async def _rebuild_all(self) -> None:
        for shard in SHARDS_USED:
            await self.credits.rebuild(shard, self.epoch, self.acked[shard], 0)
        for account_id, account in self.accounts.items():
            await self.credits.load(account_id, account.balance, account.credit_seq)

    def teardown(self) -> None:
        self.runner.run(self.link.close())
        self.runner.close()

    # Doing

    def twice(self, act: Callable[[], Awaitable[Any]]) -> Any:
        """Do it two times: the second time must answer the same and change nothing. Errors are answers too."""
        first, after_first = self.runner.run(self._do(act))
        second, after_second = self.runner.run(self._do(act))
        assert first == second
        assert after_first == after_second
        return first

    async def _do(self, act: Callable[[], Awaitable[Any]]) -> tuple[Any, dict[bytes, Any]]:
        try:
            answer = await act()
        except (CreditsError, RedisScriptError) as error:
            answer = type(error)
        return answer, await self._contents()

    async def _contents(self) -> dict[bytes, Any]:
        """Every key and its value; of the leases, whose ends move with the clock, only the members."""
        keys: list[bytes] = sorted(await self.link.command(b"KEYS", b"*"))
        return dict(zip(keys, await asyncio.gather(*map(self._content, keys)), strict=True))

    async def _content(self, key: bytes) -> Any:
        if key.endswith(b"outbox"):
            return await self.link.command(b"XRANGE", key, b"-", b"+")
        if key.endswith(b"leases"):
            return sorted(await self.link.command(b"ZRANGE", key, 0, -1))
        if b":hold:" in key:
            return await self.link.command(b"GET", key)
        flat = await self.link.command(b"HGETALL", key)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def pick(self, index: int) -> Request:
        return list(self.requests.values())[index % len(self.requests)]

    def held(self, account_id: str) -> int:
        return sum(
            request.hold.amount
            for request in self.requests.values()
            if request.hold.terms.account_id == account_id and request.state is HoldState.OPEN
        )

    def end(self, request: Request, state: HoldState, cost: int) -> None:
        """What ends a hold, or corrects its lapse, for the model."""
        account_id = request.hold.terms.account_id
        self.accounts[account_id].balance -= cost - request.cost
        shard = shard_of(account_id)
        self.seq[shard] += 1
        request.state, request.cost, request.event = state, cost, (self.epoch, self.seq[shard])

    def is_known(self, request: Request) -> bool:
        return request.epoch == self.epoch and request.state is not HoldState.REFUSED

    # Rules

    @rule(account_id=accounts, amount=st.integers(-100, 1000) | amounts | amounts.map(lambda n: -n))
    def grant(self, account_id: str, amount: int) -> None:
        account = self.accounts[account_id]
        answer = self.runner.run(self._do(lambda: self.credits.grant(account_id, account.credit_seq + 1, amount)))[0]
        if abs(amount) > AMOUNT_UCR_MAX or abs(account.balance + amount) > AMOUNT_UCR_MAX:
            assert answer is RedisScriptError
            return
        assert answer is True
        account.credit_seq += 1
        account.balance += amount
        assert self.twice(lambda: self.credits.grant(account_id, account.credit_seq, amount)) is False

    @rule(account_id=accounts, amount=amounts)
    def reserve(self, account_id: str, amount: int) -> None:
        request_id = str(UUID(int=len(self.requests)))
        terms = Terms(account_id, "key", "/v1/embeddings", "model", "card", 1)
        self._reserve(Hold(request_id, amount, "f", terms))

    def _reserve(self, hold: Hold) -> None:
        account = self.accounts[hold.terms.account_id]
        held = self.held(hold.terms.account_id)
        available = account.balance - held
        answer = self.twice(lambda: self.credits.reserve(hold))
        if hold.amount > AMOUNT_UCR_MAX or abs(available) > AMOUNT_UCR_MAX:
            assert answer is RedisScriptError
        elif 0 < hold.amount > available:
            refused = Refused("balance", hold.amount, available)
            assert answer == refused
            self.requests[hold.request_id] = Request(hold, HoldState.REFUSED, self.epoch, refused)
        else:
            assert answer == Reserved(hold.amount, Balance(account.balance, held + hold.amount))
            self.requests[hold.request_id] = Request(hold, HoldState.OPEN, self.epoch)

    @precondition(lambda self: self.requests)
    @rule(index=small, amount=amounts, attempts=st.integers(0, 2), fingerprint=st.sampled_from("ffg"))
    def reserve_again(self, index: int, amount: int, attempts: int, fingerprint: str) -> None:
        request = self.pick(index)
        hold = msgspec.structs.replace(
            request.hold, amount=amount, attempt=request.hold.attempt + attempts, fingerprint=fingerprint
        )
        if amount > AMOUNT_UCR_MAX:
            assert self.twice(lambda: self.credits.reserve(hold)) is RedisScriptError
        elif request.epoch != self.epoch:
            return  # Redis has forgotten it; ids are the gateway's own, and it makes none twice
        elif fingerprint != request.hold.fingerprint:
            assert self.twice(lambda: self.credits.reserve(hold)) is HoldConflict
        elif request.state is HoldState.REFUSED and attempts:
            self._reserve(hold)
        elif request.state is HoldState.REFUSED:
            assert self.twice(lambda: self.credits.reserve(hold)) == request.answer
        elif request.state is HoldState.OPEN:
            account_id = hold.terms.account_id
            balance = Balance(self.accounts[account_id].balance, self.held(account_id))
            assert self.twice(lambda: self.credits.reserve(hold)) == Reserved(request.hold.amount, balance)
        else:
            assert self.twice(lambda: self.credits.reserve(hold)) is HoldConflict

    @precondition(lambda self: self.requests)
    @rule(index=small, progress=small)
    def renew(self, index: int, progress: int) -> None:
        request = self.pick(index)
        hold = request.hold
        usage = Usage(output=progress)
        answer = self.twice(lambda: self.credits.renew(hold.request_id, hold.terms.account_id, progress, usage))
        if not self.is_known(request):
            assert answer is HoldMissing
            return
        assert answer is request.state
        if request.state is HoldState.OPEN:
            request.progress = max(request.progress, progress)

    @precondition(lambda self: self.requests)
    @rule(index=small, growth=small | amounts)
    def extend(self, index: int, growth: int) -> None:
        request = self.pick(index)
        account_id, before = request.hold.terms.account_id, request.hold.amount
        grown = msgspec.structs.replace(request.hold, amount=before + growth)
        answer = self.twice(lambda: self.credits.extend(grown))
        available = self.accounts[account_id].balance - self.held(account_id)
        if grown.amount > AMOUNT_UCR_MAX:
            assert answer is RedisScriptError
        elif not self.is_known(request):
            assert answer is HoldMissing
        elif request.state is not HoldState.OPEN:
            assert answer is HoldConflict
        elif growth and abs(available) > AMOUNT_UCR_MAX:
            assert answer is RedisScriptError
        elif growth > max(available, 0):
            assert answer == Refused("balance", grown.amount, before + available)
        else:
            assert answer is None
            request.hold = grown

    @precondition(lambda self: self.requests)
    @rule(index=small, cost=small | st.integers(0, 10**12), is_void=st.booleans())
    def settle(self, index: int, cost: int, is_void: bool) -> None:
        request = self.pick(index)
        cost = 0 if is_void else cost
        state = HoldState.VOIDED if is_void else HoldState.CAPTURED
        outcome = Outcome.VOID if is_void else Outcome.EXACT
        settlement = Settlement(request.hold.request_id, request.hold.terms, outcome, request.hold.amount, cost, 1)
        end = self.credits.void if is_void else self.credits.capture
        answer = self.twice(lambda: end(settlement))
        account_id = request.hold.terms.account_id
        if not self.is_known(request):
            assert answer is HoldMissing
        elif request.state in (HoldState.OPEN, HoldState.LAPSED):
            if abs(self.accounts[account_id].balance - (cost - request.cost)) > AMOUNT_UCR_MAX:
                assert answer is RedisScriptError
                return
            self.end(request, state, cost)
            assert answer == Settled(Balance(self.accounts[account_id].balance, self.held(account_id)), request.event)
        elif request.state is state and request.cost == cost:
            assert answer == Settled(Balance(self.accounts[account_id].balance, self.held(account_id)), request.event)
        else:
            assert answer is HoldConflict

    @precondition(lambda self: self.requests)
    @rule(index=small, has_run_out=st.booleans())
    def lapse(self, index: int, has_run_out: bool) -> None:
        request = self.pick(index)
        request_id, account_id = request.hold.request_id, request.hold.terms.account_id
        shard = shard_of(account_id)
        is_open = self.is_known(request) and request.state is HoldState.OPEN
        if has_run_out and is_open:
            self.runner.run(self._run_out(shard, request_id))
        answer = self.twice(lambda: self.credits.lapse(shard, request_id, account_id))
        if not self.is_known(request):
            assert answer is HoldMissing or (answer is HoldState.OPEN and request.state is HoldState.OPEN)
        elif is_open and not has_run_out:
            assert answer is HoldState.OPEN
        elif is_open and abs(self.accounts[account_id].balance - request.progress) > AMOUNT_UCR_MAX:
            assert answer is RedisScriptError
        elif is_open:
            self.end(request, HoldState.LAPSED, request.progress)
            assert answer == request.event
        else:
            assert answer == (request.event if request.state is HoldState.LAPSED else request.state)

    async def _run_out(self, shard: int, request_id: str) -> None:
        await self.link.command(b"ZADD", SHARD_KEYS[shard].leases, b"XX", 0, request_id)

    @rule(shard=st.sampled_from(SHARDS_USED), back=st.integers(0, 3))
    def ack(self, shard: int, back: int) -> None:
        seq = max(self.acked[shard], self.seq[shard] - back)
        ids = [each for each, request in self.requests.items() if shard_of(request.hold.terms.account_id) == shard]
        self.twice(lambda: self.credits.ack(shard, (self.epoch, seq), ids))
        self.acked[shard] = seq

    @rule(is_emptied=st.booleans())
    def rebuild(self, is_emptied: bool) -> None:
        """Redis is lost, or distrusted; Postgres has every event by now, and the gateways restore their live holds."""
        self.acked = dict(self.seq)
        self.epoch += 1
        self.runner.run(self._lose_and_restore(is_emptied))

    async def _lose_and_restore(self, is_emptied: bool) -> None:
        if is_emptied:
            await self.link.command(b"FLUSHDB")
        await self._rebuild_all()
        for request in self.requests.values():
            if request.state is HoldState.OPEN:
                assert await self.credits.restore(request.hold)
                assert not await self.credits.restore(request.hold)
                request.epoch, request.progress = self.epoch, 0

    # What always holds

    @invariant()
    def balances_and_holds_are_the_models(self) -> None:
        for account_id, account in self.accounts.items():
            expected = Balance(account.balance, self.held(account_id))
            assert self.runner.run(self.credits.balance(account_id)) == expected

    @invariant()
    def the_outbox_has_every_event_once_without_a_gap(self) -> None:
        for shard in SHARDS_USED:
            entries = self.runner.run(self._events(shard))
            numbers = [int(entry_id.partition(b"-")[2]) for entry_id, _ in entries]
            # After a rebuild on a Redis that kept its stream, what was acked may still stand there.
            assert [number for number in numbers if number > self.acked[shard]] == list(
                range(self.acked[shard] + 1, self.seq[shard] + 1)
            )

    async def _events(self, shard: int) -> list[Any]:
        found: list[Any] = await self.link.command(b"XRANGE", SHARD_KEYS[shard].outbox, b"-", b"+")
        return found


def test_any_sequence_of_commands_agrees_with_a_dictionary(redis_url: str) -> None:
    class OnThisServer(Model):
        url = redis_url

    bounds = settings(max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(OnThisServer, settings=bounds)
