"""The brownout rules of a gateway, while calls go on ending."""

import asyncio

from gateway.adapters.postgres.brownouts import BrownoutDesk
from gateway.adapters.postgres.notices import Notices
from gateway.core.calls.endings import Ended
from gateway.core.guard.brownout import Level
from gateway.core.guard.brownout_rules import RulePolicy
from gateway.core.guard.notices import load_templates
from gateway.core.guard.policy import Controls
from gateway.proxy.rules import BrownoutRules, Measure
from gateway.resources import shipped
from tests.books import Books, now_ms

POLICY = RulePolicy(
    window_ms=60_000, baseline_ms=600_000, calls_min=1, slow_factor=3.0, slow_ms_min=1000, error_rate=0.5
)
MEASURE = Measure(Level.SHED, for_ms=60_000, shed_percent=50, output_tokens=1000, reroute_of=lambda model: "")


async def test_a_call_of_another_model_may_end_while_one_is_being_reduced(books: Books) -> None:
    notices = Notices(books.pool, load_templates((shipped("config") / "notices.toml").read_text()))
    desk = BrownoutDesk(books.pool, books.audit_log, notices, now_ms=now_ms)
    rules = BrownoutRules(desk, ("gpt-*",), POLICY, MEASURE, controls=Controls, clock_ms=now_ms)
    rules.ended("gpt-a", Ended(status=500))
    step = asyncio.create_task(rules.step())
    await asyncio.sleep(0)  # it asks Postgres now
    rules.ended("gpt-b", Ended(status=500))
    assert await step == 0
    await rules.step()
    assert {each.models for each in await desk.list()} == {"gpt-a", "gpt-b"}
