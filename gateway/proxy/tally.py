"""Counters of the data plane: plain integers on the hot path, exported by the operations listener."""

from collections import Counter

from gateway.core.calls.calls import Endpoint
from gateway.core.holds import Flag, Outcome, Settlement
from gateway.proxy.http1.tunnel import End


class Tally:
    def __init__(self) -> None:
        self.calls: Counter[tuple[Endpoint, Outcome]] = Counter()
        self.refusals: Counter[str] = Counter()
        self.flags: Counter[Flag] = Counter()
        self.captured_ucr = 0
        self.shadow_ucr = 0  # what shadow calls would have cost
        self.sessions: Counter[End] = Counter()  # unmetered ones

    def settled(self, endpoint: Endpoint, settlement: Settlement) -> None:
        self.calls[endpoint, settlement.outcome] += 1
        self.captured_ucr += settlement.charged
        self.shadow_ucr += settlement.cost - settlement.charged
        for flag in settlement.flags:
            self.flags[flag] += 1

    def refused(self, code: str) -> None:
        self.refusals[code] += 1
