"""`tollgate brownout` and `tollgate breakers`, as an operator types them."""

import pytest

from gateway.adapters.redis.breakers import BreakerStore
from gateway.adapters.redis.link import RedisLink
from gateway.adapters.redis.scripts import Scripts
from gateway.core.guard.breaker import Breaker, Cause, Counts, State
from gateway.core.guard.shared_breaker import Report
from gateway.resources import shipped
from tests.commands import Desk
from tests.core.fleet import POLICY


def test_a_brownout_is_set_shown_and_cleared_and_the_log_tells_of_it(desk: Desk) -> None:
    assert "no model is reduced" in desk.text("brownout", "show")
    said = desk.text("brownout", "set", "gpt-4o", "3", "--for", "30m", "--reason", "too slow")
    assert said.startswith("gpt-4o: level 3 until 20")
    assert said.endswith("sheds 50 % of low priority, 1000 tokens out, to gpt-4o-mini if allowed\n")
    (shown,) = desk.json("brownout", "show")
    assert (shown["level"], shown["reroute_to"], shown["reason"]) == (3, "gpt-4o-mini", "too slow")
    table = desk.text("brownout", "show")
    assert "too slow" in " ".join(table.split())
    assert desk.json("brownout", "clear", "gpt-4o", "--reason", "done")["was"]["level"] == 3
    assert [line["action"] for line in desk.json("audit-log", "show")] == ["brownout.clear", "brownout.set"]


def test_a_family_is_reduced_by_its_pattern_with_settings_of_its_own(desk: Desk) -> None:
    arguments = "set", "gpt-4o*", "2", "--for", "1h", "--reason", "x", "--shed", "10", "--output-tokens", "77"
    made = desk.json("brownout", *arguments)
    assert (made["models"], made["shed_percent"], made["output_tokens"]) == ("gpt-4o*", 10, 77)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("set", "gpt-4o", "1", "--reason", "x"), "--for"),
        (("set", "gpt-4o", "1", "--for", "1h"), "--reason"),
        (("set", "gpt-4o", "1", "--for", "soon", "--reason", "x"), "--for"),
        (("set", "gpt-4o", "5", "--for", "1h", "--reason", "x"), "less than or equal to 4"),
        (("set", "gpt-4oo", "1", "--for", "1h", "--reason", "x"), "no model 'gpt-4oo'"),
        (("set", "gpt-4o", "3", "--to", "gpt-nine", "--for", "1h", "--reason", "x"), "no model 'gpt-nine'"),
        (("set", "gpt-4o*", "3", "--for", "1h", "--reason", "x"), "needs a model"),
        (("clear", "gpt-4o", "--reason", "x"), "no brownout"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(desk: Desk, arguments: tuple[str, ...], why: str) -> None:
    assert why in desk.refused("brownout", *arguments)


async def test_a_breaker_that_opened_is_shown(desk: Desk, redis_url: str) -> None:
    assert "every breaker is closed" in desk.text("breakers", "show")
    link = RedisLink(redis_url, command_timeout_ms=2000)
    await link.open()
    store = BreakerStore(link, Scripts(shipped("lua")), POLICY)
    opened = Breaker(state=State.OPEN, version=1, openings=1, cause=Cause.RATE)
    await store.sync("gpt-4o", Report(0, opened, 0, 60_000, Counts()))
    await store.note({"gpt-4o": State.OPEN})
    await link.close()

    (shown,) = desk.json("breakers", "show")
    assert (shown["breaker"], shown["state"], shown["cause"]) == ("gpt-4o", "open", "error_rate")
    assert 0 < shown["left_ms"] <= 60_000
    assert "error rate" in desk.text("breakers", "show")
