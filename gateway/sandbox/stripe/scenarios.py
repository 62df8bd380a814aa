"""What goes wrong on purpose: to deliveries, by chance under the seed, and to chosen API calls."""

from fnmatch import fnmatchcase
from random import Random
from typing import Literal

import msgspec


class WebhookScenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to deliveries: chances from 0 to 1, times in seconds."""

    duplicate: float = 0.0  # sent a second time, though it was acknowledged
    drop: float = 0.0  # never sent; the event stays undelivered
    suppress: float = 0.0  # the event is not even generated, which Stripe admits to in rare cases
    lose_reply: float = 0.0  # our answer counts as lost, so it is sent again as after a failure
    delay_s: float = 0.0  # every delivery waits this long
    reorder_s: float = 0.0  # and up to this much more, by chance
    bad_signature: float = 0.0  # a forged copy is sent before it

    def fates(self, random: Random) -> list["Fate"]:
        """The copies of one delivery that are to be sent, in no order; none if it is dropped."""
        if random.random() < self.drop:
            return []
        copies = 2 if random.random() < self.duplicate else 1
        fates = [
            Fate(self.delay_s + random.uniform(0.0, self.reorder_s), random.random() < self.lose_reply)
            for _ in range(copies)
        ]
        if random.random() < self.bad_signature:
            fates.append(Fate(0.0, False, forged=True))
        return fates


class Fate(msgspec.Struct, frozen=True):
    """When a copy is sent, and what becomes of the answer to it."""

    wait_s: float
    reply_lost: bool
    forged: bool = False


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What happens to the next `times` API calls whose method and path match.

    `lose_reply`: the call is executed and the connection cut. `refuse`: cut before it is executed. `error`: answered
    500 without being executed. `error_after`: executed, and answered 500. `rate_limit`: 429. `slow`: executed after
    `wait_s`. As at Stripe, a 500 is kept under its idempotency key, what was refused is not.
    """

    does: Literal["lose_reply", "refuse", "error", "error_after", "rate_limit", "slow"]
    method: str = "*"
    path: str = "*"
    times: int = 1
    wait_s: float = 0.0

    def matches(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in ("*", method) and fnmatchcase(path, self.path)


class Faults:
    """The faults that wait for their call, in the order in which they were ordered; at most `faults_max`."""

    def __init__(self, faults_max: int = 1_000) -> None:
        self._faults_max = faults_max
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        if len(self._waiting) >= self._faults_max:
            raise ValueError(f"no more than {self._faults_max} faults can wait")
        self._waiting.append(fault)

    def clear(self) -> None:
        self._waiting.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that this call meets, used up."""
        for fault in self._waiting:
            if fault.matches(method, path):
                fault.times -= 1
                if fault.times == 0:
                    self._waiting.remove(fault)
                return fault
        return None
