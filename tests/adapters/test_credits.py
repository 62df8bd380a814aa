"""Credits over a wire that loses replies, servers that forget scripts, and epochs that move on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import pytest

from gateway.adapters.redis.credits import AccountUnloaded, Credits, Expired, HoldMissing, Reserved, Settled, ShardCold
from gateway.adapters.redis.link import RedisLink, RedisUnavailable
from gateway.adapters.redis.scripts import Scripts
from gateway.core.calls.usage import Usage
from gateway.core.holds import Balance, Hold, HoldState, Outcome, Settlement, Terms
from gateway.core.shards import SHARD_KEYS, shard_of
from gateway.resources import shipped
from tests.patience import PATIENCE_S


def credits_on(link: RedisLink) -> Credits:
    return Credits(link, Scripts(shipped("lua")), lease_ms=60_000, refusal_ttl_ms=60_000, tombstone_ttl_ms=60_000)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisLink]:
    link = RedisLink(url, reconnect_backoff_ms_max=20)
    await link.open()
    try:
        yield link
    finally:
        await link.close()


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[RedisLink]:
    async with opened(redis_url) as link:
        yield link


@pytest.fixture
async def credits(link: RedisLink) -> Credits:
    return credits_on(link)


async def account_with(credits: Credits, balance: int) -> Terms:
    account_id = str(uuid4())
    await credits.rebuild(shard_of(account_id), 1, 0, 0)
    await credits.load(account_id, balance, 0)
    return Terms(account_id, "key", "/v1/chat/completions", "gpt-4o-mini", "card", 1_700_000_000_000)


class LossyWire:
    """A TCP proxy that can lose a reply after the command has taken effect: it cuts the connection instead."""

    def __init__(self, redis_url: str) -> None:
        self._redis = urlsplit(redis_url)
        self._served: set[asyncio.Task[None]] = set()
        self.loses_next_reply = False

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield self._redis._replace(netloc=f":{self._redis.password or ''}@127.0.0.1:{port}").geturl()
        finally:
            server.close()
            await asyncio.gather(*self._served)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served.add(task)
        from_redis, to_redis = await asyncio.open_connection(self._redis.hostname, self._redis.port)
        replies = asyncio.create_task(self._pass_replies(from_redis, writer))
        while data := await reader.read(65536):
            to_redis.write(data)
        to_redis.close()
        await replies

    async def _pass_replies(self, from_redis: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await from_redis.read(65536):
            if self.loses_next_reply:
                self.loses_next_reply = False
                break
            writer.write(data)
        writer.close()


@pytest.fixture
async def lossy(redis_url: str) -> AsyncIterator[tuple[LossyWire, RedisLink]]:
    wire = LossyWire(redis_url)
    async with wire.listening() as url, opened(url) as link:
        yield wire, link


async def test_what_is_repeated_after_a_lost_reply_happens_once(
    credits: Credits, link: RedisLink, lossy: tuple[LossyWire, RedisLink]
) -> None:
    wire, lossy_link = lossy
    remote = credits_on(lossy_link)
    terms = await account_with(credits, 1_000)
    shard = shard_of(terms.account_id)
    captured, voided, lapsed = (Hold(str(uuid4()), 100, "f", terms) for _ in range(3))
    steps: list[Callable[[], Awaitable[object]]] = [
        lambda: remote.reserve(captured),
        lambda: remote.reserve(voided),
        lambda: remote.restore(lapsed),
        lambda: remote.renew(lapsed.request_id, terms.account_id, 7, Usage(output=1)),
        lambda: remote.capture(Settlement(captured.request_id, terms, Outcome.EXACT, 100, 30, 1)),
        lambda: remote.void(Settlement(voided.request_id, terms, Outcome.VOID, 100, 0, 1)),
        lambda: remote.grant(terms.account_id, 1, 50),
        lambda: remote.lapse(shard, lapsed.request_id, terms.account_id),
        lambda: remote.ack(shard, (1, 1), [captured.request_id]),
    ]
    for step in steps:
        await link.command(b"ZADD", SHARD_KEYS[shard].leases, b"XX", 0, lapsed.request_id)
        await asyncio.wait_for(lossy_link.wait_available(), PATIENCE_S)
        await remote.balance(terms.account_id)  # the connection is warm: the next reply is the step's
        wire.loses_next_reply = True
        with pytest.raises(RedisUnavailable):
            await step()
        await asyncio.wait_for(lossy_link.wait_available(), PATIENCE_S)
        await step()
    assert await credits.balance(terms.account_id) == Balance(1_000 - 30 + 50 - 7, 0)
    assert await link.command(b"XLEN", SHARD_KEYS[shard].outbox) == 2


async def test_scripts_that_redis_forgot_are_sent_again(credits: Credits, link: RedisLink) -> None:
    terms = await account_with(credits, 1_000)
    holds = [Hold(str(uuid4()), 10, "f", terms) for _ in range(50)]
    await link.command(b"SCRIPT", b"FLUSH")
    replies = await asyncio.gather(*(credits.reserve(hold) for hold in holds))
    assert all(isinstance(reply, Reserved) for reply in replies)
    assert await credits.balance(terms.account_id) == Balance(1_000, 500)


async def test_a_new_epoch_is_learnt_from_redis(credits: Credits, link: RedisLink) -> None:
    terms = await account_with(credits, 1_000)
    another = credits_on(link)
    await another.rebuild(shard_of(terms.account_id), 5, 0, 0)
    with pytest.raises(AccountUnloaded):
        await credits.reserve(Hold(str(uuid4()), 10, "f", terms))
    assert await credits.balance(terms.account_id) is None
    await credits.load(terms.account_id, 900, 0)
    assert await credits.balance(terms.account_id) == Balance(900, 0)


async def test_an_empty_redis_is_cold_whatever_is_asked(credits: Credits) -> None:
    account_id = str(uuid4())
    terms = Terms(account_id, "key", "/v1/embeddings", "model", "card", 1)
    hold = Hold(str(uuid4()), 10, "f", terms)
    shard = shard_of(account_id)
    for attempt in (
        credits.reserve(hold),
        credits.renew(hold.request_id, account_id, 1, Usage()),
        credits.capture(Settlement(hold.request_id, terms, Outcome.EXACT, 10, 1, 1)),
        credits.void(Settlement(hold.request_id, terms, Outcome.VOID, 10, 0, 1)),
        credits.lapse(shard, hold.request_id, account_id),
        credits.grant(account_id, 1, 1),
        credits.load(account_id, 1, 0),
        credits.restore(hold),
    ):
        with pytest.raises(ShardCold):
            await attempt
    assert await credits.balance(account_id) is None
    assert await credits.shard_states() == [None] * 64
    assert await credits.expired(10) == []


async def test_expired_leases_are_told_with_their_accounts(credits: Credits, link: RedisLink) -> None:
    terms = await account_with(credits, 1_000)
    shard = shard_of(terms.account_id)
    live, over = (Hold(str(uuid4()), 10, "f", terms) for _ in range(2))
    await credits.reserve(live)
    await credits.reserve(over)
    await link.command(b"ZADD", SHARD_KEYS[shard].leases, 0, over.request_id, 1, "lost")
    expired = Expired(shard, over.request_id, terms.account_id, terms)
    assert await credits.expired(10) == [expired, Expired(shard, "lost", "", None)]
    assert await credits.expired(1) == [expired]
    with pytest.raises(HoldMissing):
        await credits.lapse(shard, "lost", "")
    assert await credits.lapse(shard, live.request_id, terms.account_id) is HoldState.OPEN


async def test_a_settlement_travels_whole(credits: Credits, link: RedisLink) -> None:
    terms = await account_with(credits, 2**53 - 1)
    hold = Hold(str(uuid4()), 2**53 - 1, "f", terms)
    await credits.reserve(hold)
    settlement = Settlement(hold.request_id, terms, Outcome.EXACT, 2**53 - 1, 2**53 - 1, 1, upstream_request_id="é\n\0")
    assert await credits.capture(settlement) == Settled(Balance(0, 0), (1, 1))
    [(_, fields)] = await link.command(b"XRANGE", SHARD_KEYS[shard_of(terms.account_id)].outbox, b"-", b"+")
    event = dict(zip(fields[::2], fields[1::2], strict=True))
    assert msgspec.json.decode(event[b"data"], type=Settlement) == settlement
    assert event[b"cost"] == b"9007199254740991"
