"""The breakers of the fleet in Redis: one key each, with a hash tag of its own, and one list of those that ever opened.

Nothing here is money: what is lost is restored by the first gateway that speaks, so keys expire.
"""

from typing import Any

from gateway.adapters.redis.link import RedisLink
from gateway.adapters.redis.scripts import Scripts
from gateway.core.guard.breaker import Breaker, BreakerPolicy, Cause, Counts, State
from gateway.core.guard.shared_breaker import Report, Standing

INDEX = b"tg:breakers"  # name → state, of each that has opened within the time to live
TTL_MS = 24 * 3600 * 1000


class BreakerStore:
    def __init__(self, link: RedisLink, scripts: Scripts, policy: BreakerPolicy) -> None:
        self._link = link
        self._scripts = scripts
        self._policy = policy

    async def sync(self, name: str, report: Report) -> Standing:
        """Tell the fleet; returns what holds. Raises `RedisUnavailable`: it may or may not have been told."""
        breaker = report.breaker
        reply = await self._scripts.run(
            self._link,
            "breaker_sync",
            [_key(name)],
            report.base_version,
            breaker.state,
            breaker.version,
            report.age_ms,
            report.left_ms,
            breaker.openings,
            breaker.successes,
            breaker.cause,
            " ".join(map(str, report.counts)),
            self._policy.bucket_ms,
            self._policy.buckets,
            TTL_MS,
        )
        return _standing(reply)

    async def lease_probe(self, name: str, version: int, token: str, lease_ms: int) -> bool:
        """Whether this gateway may probe now; raises `RedisUnavailable`."""
        reply = await self._probe(name, version, token, lease_ms)
        return bool(reply == [b"LEASED"])

    async def end_probe(self, name: str, token: str) -> None:
        """Give the place of a probe back; raises `RedisUnavailable`: then its lease runs out."""
        await self._probe(name, 0, token, 0)

    async def opened(self) -> dict[str, State]:
        """Every breaker that has opened lately, as it was when that was last noted; raises `RedisUnavailable`."""
        flat = await self._link.command(b"HGETALL", INDEX)
        return {name.decode(): State(state.decode()) for name, state in zip(flat[::2], flat[1::2], strict=True)}

    async def note(self, states: dict[str, State]) -> None:
        """Have every gateway find these."""
        await self._link.command(b"HSET", INDEX, *(word for pair in states.items() for word in pair))
        await self._link.command(b"PEXPIRE", INDEX, TTL_MS)

    async def look(self, name: str) -> Standing | None:
        """What holds, without telling anything; None if there is no such breaker. Raises `RedisUnavailable`."""
        flat = await self._link.command(b"HGETALL", _key(name))
        held = {field.decode(): value.decode() for field, value in zip(flat[::2], flat[1::2], strict=True)}
        if "version" not in held:
            return None
        time = await self._link.command(b"TIME")
        now_ms = int(time[0]) * 1000 + int(time[1]) // 1000
        newest = now_ms // self._policy.bucket_ms
        buckets = (
            (newest - int(field.removeprefix("bucket:")), _counts(value))
            for field, value in held.items()
            if field.startswith("bucket:")
        )
        return Standing(
            _breaker(held["state"], held["version"], held["openings"], held["successes"], held["cause"]),
            now_ms - int(held["changed"]),
            max(0, int(held["until"]) - now_ms),
            tuple(sorted((age, counts) for age, counts in buckets if age < self._policy.buckets)),
        )

    async def _probe(self, name: str, version: int, token: str, lease_ms: int) -> Any:
        arguments = version, token, lease_ms, self._policy.probes_max
        return await self._scripts.run(self._link, "breaker_probe", [_key(name)], *arguments)


def _key(name: str) -> bytes:
    return b"tg:{breaker:%b}" % name.encode()


def _standing(reply: list[Any]) -> Standing:
    state, version, age_ms, left_ms, openings, successes, cause, *buckets = reply
    breaker = _breaker(state.decode(), version, openings, successes, cause.decode())
    ages_and_counts = zip(buckets[::2], buckets[1::2], strict=True)
    return Standing(breaker, age_ms, left_ms, tuple(sorted((age, _counts(text)) for age, text in ages_and_counts)))


def _breaker(state: str, version: Any, openings: Any, successes: Any, cause: str) -> Breaker:
    return Breaker(
        state=State(state),
        version=int(version),
        openings=int(openings),
        successes=int(successes),
        cause=Cause(cause) if cause in _CAUSES else Cause.NONE,
    )


# A newer gateway of the fleet may know more of them.
_CAUSES = frozenset(Cause)


def _counts(text: Any) -> Counts:
    return Counts(*map(int, text.split()))
