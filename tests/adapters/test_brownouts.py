"""Brownouts in Postgres, and in the snapshot that gateways follow."""

from typing import Any

import msgspec
import pytest

from gateway.adapters.postgres.audit_log import AuditLog, ChangeRefused, Signature
from gateway.adapters.postgres.brownouts import BrownoutDesk
from gateway.adapters.postgres.controls import ControlsFollower
from gateway.adapters.postgres.notices import Notices
from gateway.core.guard.brownout import Brownout, Level
from gateway.core.guard.notices import load_templates
from gateway.resources import shipped
from tests.adapters.conftest import Clock
from tests.books import Books

ANN = Signature("ann", "too slow")


@pytest.fixture
def desk(books: Books, clock: Clock) -> BrownoutDesk:
    notices = Notices(books.pool, load_templates((shipped("config") / "notices.toml").read_text()))
    return BrownoutDesk(books.pool, AuditLog(books.pool), notices, now_ms=clock)


async def trim(desk: BrownoutDesk, models: str = "gpt-4o*", *, for_ms: int = 60_000, **settings: Any) -> Brownout:
    plain: dict[str, Any] = {"shed_percent": 50, "output_tokens": 500, "reroute_to": "gpt-4o-mini", "banner": ""}
    made = await desk.set(models, Level.TRIM, ANN, for_ms=for_ms, **(plain | settings))
    assert made is not None
    return made


async def test_a_brownout_is_in_the_next_snapshot_as_it_was_set(desk: BrownoutDesk, follower: ControlsFollower) -> None:
    made = await trim(desk)
    await follower.step()
    brownouts = follower.snapshot().brownouts
    assert brownouts is not None
    assert brownouts.brownouts == (made,)


async def test_operators_are_told_of_a_brownout_once_in_a_while(desk: BrownoutDesk, books: Books) -> None:
    await trim(desk)
    await trim(desk)
    told = [row["fields"] for row in await books.pool.fetch("SELECT fields FROM notice")]
    assert len(told) == 1
    assert "gpt-4o*" in told[0]


async def test_it_ends_by_itself(desk: BrownoutDesk, follower: ControlsFollower, clock: Clock) -> None:
    await trim(desk, for_ms=60_000)
    await follower.step()
    clock.now_ms += 60_000
    await follower.step()
    assert follower.snapshot().brownouts is None


async def test_it_ends_before_its_time_when_it_is_cleared(desk: BrownoutDesk, follower: ControlsFollower) -> None:
    made = await trim(desk)
    await follower.step()
    assert await desk.clear("gpt-4o*", ANN) == made
    await follower.step()
    assert follower.snapshot().brownouts is None
    with pytest.raises(ChangeRefused, match="no brownout"):
        await desk.clear("gpt-4o*", ANN)


async def test_every_change_is_in_the_audit_log_with_before_and_after(books: Books, desk: BrownoutDesk) -> None:
    first = await trim(desk)
    second = await trim(desk, shed_percent=90)
    await desk.clear("gpt-4o*", Signature("bob", "over"))

    log = await AuditLog(books.pool).page(count=10)
    assert [(each.author, each.action) for each in log] == [
        ("bob", "brownout.clear"),
        ("ann", "brownout.set"),
        ("ann", "brownout.set"),
    ]
    assert (log[1].before, log[1].after) == (msgspec.to_builtins(first), msgspec.to_builtins(second))
    assert (log[0].before, log[0].after) == (msgspec.to_builtins(second), None)


async def test_a_rule_leaves_alone_what_an_operator_has_set(desk: BrownoutDesk, clock: Clock) -> None:
    await trim(desk, for_ms=60_000)
    rule = Signature("rule", "p95")
    settings: dict[str, Any] = {"shed_percent": 1, "output_tokens": 1, "for_ms": 1000, "unless_set": True}

    assert await desk.set("gpt-4o*", Level.SHED, rule, **settings) is None
    clock.now_ms += 60_000
    assert await desk.set("gpt-4o*", Level.SHED, rule, **settings) is not None


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"models": ""}, "1 to 128"),
        ({"models": "gpt 4"}, "without spaces"),
        ({"models": "gpt\0"}, "printable"),
        ({"reroute_to": "gpt-4o*"}, "to itself"),
        ({"reroute_to": "gpt-4o-m*"}, "one model"),
        ({"shed_percent": 101}, "0 to 100"),
        ({"output_tokens": 0}, "1 to"),
        ({"for_ms": 0}, "at most 31 days"),
        ({"for_ms": 10**12}, "at most 31 days"),
        ({"banner": "two\nlines"}, "banner"),
    ],
)
async def test_what_nobody_could_mean_is_refused(desk: BrownoutDesk, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ChangeRefused, match=why):
        await trim(desk, **settings)
    assert await desk.list() == []


async def test_a_reroute_says_where_to(desk: BrownoutDesk) -> None:
    with pytest.raises(ChangeRefused, match="needs a model"):
        await desk.set("gpt-4o", Level.REROUTE, ANN, for_ms=1000, shed_percent=0, output_tokens=1)
