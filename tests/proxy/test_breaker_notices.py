"""Operators are told of a breaker once when it opens and once when it closes, however many gateways see it."""

from gateway.adapters.postgres.notices import Notices
from gateway.core.guard.breaker import State
from gateway.core.guard.notices import load_templates
from gateway.proxy.breaker_notices import BreakerNotices
from gateway.resources import shipped
from tests.books import Books


async def test_a_breaker_that_opens_probes_and_closes_is_told_of_twice(books: Books) -> None:
    notices = Notices(books.pool, load_templates((shipped("config") / "notices.toml").read_text()))
    states = {"gpt-4o": State.CLOSED, "gpt-5": State.CLOSED}
    gateways = [BreakerNotices(states.items, notices) for _ in range(2)]
    for state in (State.CLOSED, State.OPEN, State.OPEN, State.HALF_OPEN, State.OPEN, State.CLOSED, State.CLOSED):
        states["gpt-4o"] = state
        for gateway in gateways:
            await gateway.step()

    told = [(each.kind, each.fields["model"]) for each in await notices.listing(count=9)]
    assert told == [("breaker_closed", "gpt-4o"), ("breaker_opened", "gpt-4o")]
